// WD_CHECK(condition) guards against bugs of our own: it prints file, line and condition and
// aborts, in release builds too. Bytes from a wire, a disk or shared memory never reach one: they
// are parsed first. WD_DCHECK is for inner loops and vanishes with NDEBUG.
#pragma once

namespace wideep {
[[noreturn]] void check_failed(const char* file, int line, const char* condition);
}  // namespace wideep

#define WD_CHECK(condition)                                   \
  do {                                                        \
    if (!(condition)) [[unlikely]]                            \
      ::wideep::check_failed(__FILE__, __LINE__, #condition); \
  } while (false)

#ifdef NDEBUG
#define WD_DCHECK(condition) static_cast<void>(0)
#else
#define WD_DCHECK(condition) WD_CHECK(condition)
#endif
