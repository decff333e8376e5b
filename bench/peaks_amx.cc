#include "math/amx_tiles-inl.h"
#include "peaks.h"

namespace wideep::bench {
namespace {

constexpr int kSteps = 5000;

// `four` multiplies tiles 4 and 5 into each of four sums: 16 x 16 x `depth` multiply-adds each.
template <typename Four>
double burst(int depth, Four four) {
  math::configure_tiles();
  for (int step = 0; step < kSteps; ++step)
    four();
  _tile_release();
  return double{kSteps} * 4 * 16 * 16 * depth * 2;
}

double tdpbf16ps() {
  return burst(32, [] {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  });
}

double tdpbsud() {
  return burst(64, [] {
    _tile_dpbsud(0, 4, 5);
    _tile_dpbsud(1, 4, 5);
    _tile_dpbsud(2, 4, 5);
    _tile_dpbsud(3, 4, 5);
  });
}

}  // namespace

Peaks amx_peaks() {
  return {.bf16 = tdpbf16ps, .int8 = tdpbsud};
}

}  // namespace wideep::bench
