# wideep_level(LEVEL module...) declares the order of the house.
# wideep_module(name DEPS ... LIBS ...) builds src/<name>/*.cc into wideep_<name>, and all its
# *_test.cc into one test program <name>_test. A dependency on the same or a higher level is an error.
set(WIDEEP_MODULES "")

function(wideep_level level)
  foreach(module IN LISTS ARGN)
    set(WIDEEP_LEVEL_${module} ${level} PARENT_SCOPE)
    list(APPEND WIDEEP_MODULES ${module})
  endforeach()
  set(WIDEEP_MODULES ${WIDEEP_MODULES} PARENT_SCOPE)
endfunction()

function(wideep_module name)
  cmake_parse_arguments(ARG "" "" "DEPS;LIBS;PRIVATE_LIBS;TEST_LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "_(test|fuzz|bench)\\.cc$")
  add_library(wideep_${name} STATIC ${sources})
  foreach(dep IN LISTS ARG_DEPS)
    if(NOT WIDEEP_LEVEL_${dep} LESS WIDEEP_LEVEL_${name})
      message(FATAL_ERROR "module ${name} (level ${WIDEEP_LEVEL_${name}}) must not depend on ${dep} "
                          "(level ${WIDEEP_LEVEL_${dep}})")
    endif()
    target_link_libraries(wideep_${name} PUBLIC wideep_${dep})
  endforeach()
  target_link_libraries(wideep_${name} PUBLIC Threads::Threads ${ARG_LIBS} PRIVATE ${ARG_PRIVATE_LIBS})
  if(BUILD_TESTING AND tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE wideep_${name} GTest::gmock GTest::gtest_main
                          ${ARG_TEST_LIBS})
    target_compile_definitions(${name}_test PRIVATE WIDEEP_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    add_test(NAME ${name} COMMAND ${name}_test)
    set_tests_properties(${name} PROPERTIES LABELS unit TIMEOUT 1800)
  endif()
endfunction()

# One fuzz target per parser: fuzz/<name>_fuzz.cc with its corpus in fuzz/corpus/<name>/.
function(wideep_fuzz name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  add_executable(${name}_fuzz ${CMAKE_CURRENT_SOURCE_DIR}/${name}_fuzz.cc)
  foreach(dep IN LISTS ARG_DEPS)
    target_link_libraries(${name}_fuzz PRIVATE wideep_${dep})
    # Without this libFuzzer sees no coverage in what it tests and searches blindly.
    target_compile_options(wideep_${dep} PRIVATE -fsanitize=fuzzer-no-link)
  endforeach()
  target_link_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
  target_compile_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
endfunction()
