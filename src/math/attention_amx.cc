// Attention on AMX tiles (tdpbf16ps). Scores: a tile of keys is sixteen cached rows as they lie in
// the cache, a tile of queries is packed. Values: the weights of a row tile are turned once per
// partition into [block of 32 positions][16 rows][32], the values are packed in pairs.
//
// Sums of two by two tiles (or four by one for a single row tile) stay in registers over the whole
// key and over the whole partition.
#include "math/attention_bf16-inl.h"

#include <cstring>

namespace wideep::math {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// All eight tiles are sixteen rows of 64 bytes.
inline void configure_tiles() {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = 64;
    config.rows[tile] = 16;
  }
  _tile_loadconfig(&config);
}

inline void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// Where the tiles of one operand start, their stride, and the bytes from one step to the next.
struct Operand {
  const std::byte* tiles[4];
  int64_t stride;
  int64_t step_bytes;
};

// Sums 0 … 3 = a0 b0, a0 b1, a1 b0, a1 b1 over `steps` steps of 32 products.
inline void multiply_two_by_two(const Operand& a, const Operand& b, int64_t steps) {
  zero_sums();
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(4, a.tiles[0] + s * a.step_bytes, a.stride);
    _tile_loadd(6, b.tiles[0] + s * b.step_bytes, b.stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b.tiles[1] + s * b.step_bytes, b.stride);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a.tiles[1] + s * a.step_bytes, a.stride);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

// Sums 0 … 3 = a0 b0, a1 b0, a2 b0, a3 b0.
inline void multiply_four_by_one(const Operand& a, const Operand& b, int64_t steps) {
  zero_sums();
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(6, b.tiles[0] + s * b.step_bytes, b.stride);
    _tile_loadd(4, a.tiles[0] + s * a.step_bytes, a.stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a.tiles[1] + s * a.step_bytes, a.stride);
    _tile_dpbf16ps(1, 5, 6);
    _tile_loadd(4, a.tiles[2] + s * a.step_bytes, a.stride);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(5, a.tiles[3] + s * a.step_bytes, a.stride);
    _tile_dpbf16ps(3, 5, 6);
  }
}

// Sums 0 … 3 = a0 b0, a0 b1, a0 b2, a0 b3.
inline void multiply_one_by_four(const Operand& a, const Operand& b, int64_t steps) {
  zero_sums();
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(4, a.tiles[0] + s * a.step_bytes, a.stride);
    _tile_loadd(6, b.tiles[0] + s * b.step_bytes, b.stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b.tiles[1] + s * b.step_bytes, b.stride);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(6, b.tiles[2] + s * b.step_bytes, b.stride);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(7, b.tiles[3] + s * b.step_bytes, b.stride);
    _tile_dpbf16ps(3, 4, 7);
  }
}

// Stores sum `Sum` into `columns` (at most 16) columns of the tile's rows.
template <int Sum>
inline void store_sum(const RowTile& tile, int64_t stride, int64_t column, int64_t columns) {
  if (columns <= 0) return;
  if (stride != 0 && columns == 16) {
    _tile_stored(Sum, tile.out[0] + column, static_cast<size_t>(stride) * 4);
    return;
  }
  alignas(64) float sums[kRowTile][16];
  _tile_stored(Sum, sums, 64);
  for (int64_t r = 0; r < tile.num_rows; ++r)
    AttentionSoftmax<Simd>::store(tile.out[static_cast<size_t>(r)] + column,
                                  _mm512_load_ps(sums[r]), columns < 16 ? columns : 16);
}

struct TileAttention {
  using Shared = Bf16Attention;
  using Softmax = Bf16Attention::Softmax;
  static constexpr int64_t kTilesMax = 4;
  static constexpr int64_t kScores = kAttentionPartition * kRowTile;
  static constexpr int64_t kWeightBytes = kPairs * kRowTile * 4;

  static int64_t work_bytes(const AttentionShape&) {
    return kTilesMax * (kScores * 4 + kWeightBytes) + kWeightBytes;
  }

  // Row tiles `first` and, if there is one, the next, by 64 positions from `position`.
  static void score(const AttentionShape& shape,
                    const CachedPartition& cached,
                    std::span<RowTile> tiles,
                    int64_t position,
                    float* scores) {
    const int64_t steps = shape.key_width / 32;
    const int64_t last_tile = (cached.count - 1) / kAttentionTile;
    Operand keys = {.stride = cached.token_bytes, .step_bytes = 64};
    for (int64_t i = 0; i < 4; ++i) {
      // Past the end the last tile again: nobody reads those scores.
      const int64_t tile = position / kAttentionTile + i;
      const auto index = static_cast<size_t>(tile < last_tile ? tile : last_tile);
      keys.tiles[i] = cached.tiles[index] + cached.key_bytes;
    }
    Operand queries = {.tiles = {tiles[0].queries}, .stride = 64, .step_bytes = 1024};
    float* out = scores + position * kRowTile;
    if (tiles.size() == 1) {
      multiply_four_by_one(keys, queries, steps);
      _tile_stored(0, out, 64);
      _tile_stored(1, out + 256, 64);
      _tile_stored(2, out + 512, 64);
      _tile_stored(3, out + 768, 64);
      return;
    }
    queries.tiles[1] = tiles[1].queries;
    for (int half = 0; half < 2; ++half, out += 512) {
      multiply_two_by_two(keys, queries, steps);
      _tile_stored(0, out, 64);
      _tile_stored(1, out + kScores, 64);
      _tile_stored(2, out + 256, 64);
      _tile_stored(3, out + kScores + 256, 64);
      keys.tiles[0] = keys.tiles[2];
      keys.tiles[1] = keys.tiles[3];
    }
  }

  // Weights [block of 32 positions][16 rows][32] of one tile, zero up to `steps` blocks.
  static void weigh(const AttentionShape& shape,
                    const float* scores,
                    int64_t steps,
                    RowTile& tile,
                    std::byte* pairs,
                    std::byte* weights) {
    Shared::weigh(shape, scores, tile, pairs);
    const int64_t num_pairs = (Softmax::seen_by_any(tile) + 1) / 2;
    std::memset(pairs + num_pairs * 64, 0, static_cast<size_t>(steps * 16 - num_pairs) * 64);
    for (int64_t s = 0; s < steps; ++s) {
      __m512i lines[16];
      for (int i = 0; i < 16; ++i)
        lines[i] = _mm512_load_si512(pairs + (s * 16 + i) * 64);
      transpose16(lines);
      for (int i = 0; i < 16; ++i)
        _mm512_store_si512(weights + (s * 16 + i) * 64, lines[i]);
    }
  }

  // The stride between the rows of a full tile, or 0 if they are not evenly spaced.
  static int64_t row_stride(const RowTile& tile) {
    if (tile.num_rows < kRowTile) return 0;
    const int64_t stride = tile.out[1] - tile.out[0];
    for (int64_t r = 2; r < kRowTile; ++r) {
      if (tile.out[static_cast<size_t>(r)] - tile.out[0] != r * stride) return 0;
    }
    return stride;
  }

  // Weighted values of one or two row tiles over `steps` blocks of 32 positions.
  static void weigh_values(const AttentionShape& shape,
                           const CachedPartition& cached,
                           std::span<RowTile> tiles,
                           const std::byte* weights,
                           int64_t steps) {
    const bool two = tiles.size() == 2;
    const Operand rows = {
        .tiles = {weights, weights + kWeightBytes}, .stride = 64, .step_bytes = 1024};
    const int64_t strides[2] = {row_stride(tiles[0]), two ? row_stride(tiles[1]) : 0};
    Operand values = {.stride = kPanelColumns * 4, .step_bytes = 16 * kPanelColumns * 4};
    const int64_t columns = two ? 32 : 64;
    for (int64_t column = 0; column < shape.value_width; column += columns) {
      const std::byte* panel = cached.values + column / kPanelColumns * kPanelBytes;
      for (int64_t i = 0; i < columns / 16; ++i)
        values.tiles[i] = panel + column % kPanelColumns * 4 + i * 64;
      const int64_t left = shape.value_width - column;
      if (two) {
        multiply_two_by_two(rows, values, steps);
        store_sum<0>(tiles[0], strides[0], column, left);
        store_sum<1>(tiles[0], strides[0], column + 16, left - 16);
        store_sum<2>(tiles[1], strides[1], column, left);
        store_sum<3>(tiles[1], strides[1], column + 16, left - 16);
      } else {
        multiply_one_by_four(rows, values, steps);
        store_sum<0>(tiles[0], strides[0], column, left);
        store_sum<1>(tiles[0], strides[0], column + 16, left - 16);
        store_sum<2>(tiles[0], strides[0], column + 32, left - 32);
        store_sum<3>(tiles[0], strides[0], column + 48, left - 48);
      }
    }
  }

  static void attend(const AttentionShape& shape,
                     const CachedPartition& cached,
                     std::span<RowTile> tiles,
                     std::byte* work) {
    auto* scores = reinterpret_cast<float*>(work);
    std::byte* weights = work + kTilesMax * kScores * 4;
    std::byte* pairs = weights + kTilesMax * kWeightBytes;
    const auto num_tiles = static_cast<int64_t>(tiles.size());
    const int64_t any = Softmax::seen_by_any(tiles[tiles.size() - 1]);
    const int64_t steps = (any + 31) / 32;
    const auto two_of = [&](int64_t i) {
      return tiles.subspan(static_cast<size_t>(i), i + 1 < num_tiles ? 2 : 1);
    };
    configure_tiles();
    for (int64_t position = 0; position < any; position += 64) {
      for (int64_t i = 0; i < num_tiles; i += 2)
        score(shape, cached, two_of(i), position, scores + i * kScores);
    }
    for (int64_t i = 0; i < num_tiles; ++i) {
      weigh(shape, scores + i * kScores, steps, tiles[static_cast<size_t>(i)], pairs,
            weights + i * kWeightBytes);
    }
    for (int64_t i = 0; i < num_tiles; i += 2)
      weigh_values(shape, cached, two_of(i), weights + i * kWeightBytes, steps);
    _tile_release();
  }

  static constexpr AttentionKernels kKernels = {.query_bytes = Shared::query_bytes,
                                                .value_bytes = Shared::value_bytes,
                                                .work_bytes = work_bytes,
                                                .tiles_max = kTilesMax,
                                                .pack_queries = Shared::pack_queries,
                                                .pack_values = Shared::pack_values,
                                                .values_are_finite = Shared::F32::values_are_finite,
                                                .attend = attend,
                                                .merge = Softmax::merge,
                                                .finish = Softmax::finish};
};

}  // namespace

namespace amx {

const AttentionKernels& attention_kernels() {
  return TileAttention::kKernels;
}

}  // namespace amx
}  // namespace wideep::math
