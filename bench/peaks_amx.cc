#include "peaks.h"

#include <immintrin.h>

namespace wideep::bench {
namespace {

constexpr int kSteps = 5000;

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

double tdpbf16ps() {
  const TileConfig config;
  _tile_loadconfig(&config);
  for (int step = 0; step < kSteps; ++step) {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_release();
  return double{kSteps} * 4 * 16 * 16 * 32 * 2;
}

double tdpbsud() {
  const TileConfig config;
  _tile_loadconfig(&config);
  for (int step = 0; step < kSteps; ++step) {
    _tile_dpbsud(0, 4, 5);
    _tile_dpbsud(1, 4, 5);
    _tile_dpbsud(2, 4, 5);
    _tile_dpbsud(3, 4, 5);
  }
  _tile_release();
  return double{kSteps} * 4 * 16 * 16 * 64 * 2;
}

}  // namespace

Peaks amx_peaks() {
  return {.bf16 = tdpbf16ps, .int8 = tdpbsud};
}

}  // namespace wideep::bench
