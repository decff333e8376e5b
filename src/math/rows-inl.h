// How a kernel walks over many rows: in groups that fit its registers. Everything in an -inl.h lies
// in an unnamed namespace and calls no function of the standard library, so that nothing compiled
// for a wide ISA can be linked into code that must run everywhere.
#pragma once

#include <cstdint>

namespace wideep::math {
namespace {

inline int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

// Calls f.template operator()<count>() for a count in [1, kMax].
template <int kMax, typename F>
inline void with_count(int64_t count, F&& f) {
  if constexpr (kMax > 1) {
    if (count < kMax) {
      with_count<kMax - 1>(count, f);
      return;
    }
  }
  f.template operator()<kMax>();
}

// Calls f.template operator()<rows>(first) for groups of at most kMax rows, as even as can be: 7
// rows are 4 + 3, which reads the weights as often as 6 + 1 and keeps more registers busy.
template <int kMax, typename F>
inline void for_row_groups(int64_t num_rows, F&& f) {
  const int64_t groups = (num_rows + kMax - 1) / kMax;
  int64_t first = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t count = num_rows / groups + (g < num_rows % groups ? 1 : 0);
    with_count<kMax>(count, [&]<int kRows>() { f.template operator()<kRows>(first); });
    first += count;
  }
}

}  // namespace
}  // namespace wideep::math
