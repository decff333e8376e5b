// AMX tiles as both attention and products set them up.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace wideep::math {
namespace {

constexpr int kNumTiles = 8;
constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBytes = 64;  // of a tile's row

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Rows of 64 bytes: `height` of them in the first `num_low` tiles, sixteen in the others.
inline void configure_tiles(int num_low = 0, int64_t height = kTileRows) {
  TileConfig config;
  for (int tile = 0; tile < kNumTiles; ++tile) {
    config.row_bytes[tile] = kTileBytes;
    config.rows[tile] = static_cast<uint8_t>(tile < num_low ? height : kTileRows);
  }
  _tile_loadconfig(&config);
}

inline void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

}  // namespace
}  // namespace wideep::math
