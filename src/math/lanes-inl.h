// Rows of floats cut into vectors, the last one possibly short. `S` is the Simd of a level.
#pragma once

#include <cstdint>

namespace wideep::math {
namespace {

template <typename S>
struct Lanes {
  using Float = typename S::Float;
  static constexpr int64_t kLanes = S::kLanes;

  // Calls step(offset, lanes) for every vector of a row of `n`.
  template <typename Step>
  static void for_vectors(int64_t n, Step step) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      step(i, kLanes);
    if (i < n) step(i, n - i);
  }

  // The first `lanes` lanes; the others are zero, or left alone.
  static Float load(const float* p, int64_t lanes) {
    return lanes == kLanes ? S::load(p) : S::load_first(p, lanes);
  }

  static void store(float* p, Float v, int64_t lanes) {
    if (lanes == kLanes) {
      S::store(p, v);
    } else {
      S::store_first(p, v, lanes);
    }
  }
};

}  // namespace
}  // namespace wideep::math
