# Compiler settings shared by every target.
set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang" OR CMAKE_CXX_COMPILER_VERSION VERSION_LESS 19)
  message(WARNING "wideep is built and measured with clang 19; this is ${CMAKE_CXX_COMPILER_ID} "
                  "${CMAKE_CXX_COMPILER_VERSION}")
endif()

find_program(CCACHE ccache)
if(CCACHE)
  # Clones in other folders share one cache.
  set(CMAKE_CXX_COMPILER_LAUNCHER env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=time_macros ${CCACHE})
endif()

# -ffp-contract=off: a*b+c is two roundings everywhere unless the source says fma. Results must not
# depend on what the optimiser happens to fuse (docs/architecture.md, promise 1).
add_compile_options(-march=x86-64-v2 -ffp-contract=off -fno-strict-aliasing -Wall -Wextra -Wshadow
                    -Wno-missing-field-initializers -Wno-deprecated-declarations -Wthread-safety -Werror=return-type
                    -Werror=unused-result -ffile-prefix-map=${CMAKE_SOURCE_DIR}/=)
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")
if(WIDEEP_DEBUG_INFO STREQUAL "line-tables")
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -gline-tables-only")
endif()
if(WIDEEP_SANITIZE)
  # memcpy and the like of zero bytes from a null pointer are well defined (C2y, and every libc).
  add_compile_options(-fsanitize=${WIDEEP_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all -fno-sanitize=nonnull-attribute)
  add_link_options(-fsanitize=${WIDEEP_SANITIZE})
endif()
add_link_options(-fuse-ld=lld-19)
include_directories(${CMAKE_SOURCE_DIR}/src)
