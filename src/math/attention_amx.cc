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

// Sums 0 … 3 = a0 b0, a0 b1, a1 b0, a1 b1 over `steps` steps of 32 products. `b` stays in L1 from
// call to call; `a` streams by, and a hint keeps it from pushing `b` out.
inline void multiply_two_by_two(const Operand& a, const Operand& b, int64_t steps) {
  zero_sums();
  for (int64_t s = 0; s < steps; ++s) {
    _tile_stream_loadd(4, a.tiles[0] + s * a.step_bytes, a.stride);
    _tile_loadd(6, b.tiles[0] + s * b.step_bytes, b.stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b.tiles[1] + s * b.step_bytes, b.stride);
    _tile_dpbf16ps(1, 4, 7);
    _tile_stream_loadd(5, a.tiles[1] + s * a.step_bytes, a.stride);
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

struct TileAttention {
  using Shared = Bf16Attention;
  using Softmax = Bf16Attention::Softmax;
  static constexpr int64_t kTilesMax = 16;

  // Working memory of one call.
  struct Work {
    explicit Work(std::byte* memory)
        : scores(reinterpret_cast<float*>(memory)),
          pairs(memory + 2 * kScores * 4),
          panels(pairs + kWeightBytes),
          weights(panels + 2 * kValuePanelBytes) {}

    float* scores;       // of two row tiles
    std::byte* pairs;    // weights of one row tile before they are turned
    std::byte* panels;   // two
    std::byte* weights;  // of all row tiles
  };

  static int64_t work_bytes(const AttentionShape&) {
    return 2 * kScores * 4 + kWeightBytes + 2 * kValuePanelBytes + kTilesMax * kWeightBytes;
  }

  // Scores of one or two row tiles with 64 positions.
  static void score(const AttentionShape& shape,
                    const CachedPartition& cached,
                    std::span<const RowTile> tiles,
                    int64_t position,
                    float* scores) {
    const int64_t steps = shape.key_width / 32;
    const int64_t last_tile = (cached.count - 1) / kAttentionTile;
    Operand keys = {.tiles = {}, .stride = cached.token_bytes, .step_bytes = 64};
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

  // Weights as tiles: [block of 32 positions][16 rows][32], zeros from the pairs that a row tile
  // sees up to `steps` blocks.
  static void turn_weights(std::byte* pairs, int64_t num_pairs, int64_t steps, std::byte* weights) {
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

  // What row tiles become from the panels of `column`.
  struct Columns {
    PartitionTurn turn;
    int64_t column;
    int64_t value_width;
    int64_t steps;
  };

  // Takes sums [16 rows][two vectors] into the results; the vectors are `stride` floats apart.
  static void take_sums(const float* a,
                        const float* b,
                        const Columns& to,
                        const Softmax::Factors& factors,
                        RowTile& tile) {
    for (int64_t r = 0; r < tile.num_rows; ++r) {
      Shared::take_row(_mm512_load_ps(a + r * 16), _mm512_load_ps(b + r * 16),
                       to.value_width - to.column, factors, r, to.turn,
                       tile.out[static_cast<size_t>(r)] + to.column);
    }
  }

  // One or two row tiles by one panel.
  static void add_panel(const Work& work,
                        int64_t first,
                        const Columns& to,
                        const Softmax::Factors* factors,
                        std::span<RowTile> tiles) {
    const std::byte* weights = work.weights + first * kWeightBytes;
    const bool two = tiles.size() == 2;
    // One row tile is multiplied twice: it is the last of many.
    const Operand rows = {
        .tiles = {weights, weights + (two ? kWeightBytes : 0)}, .stride = 64, .step_bytes = 1024};
    alignas(64) float sums[4][kRowTile * 16];
    multiply_two_by_two(rows, panels_of(work), to.steps);
    store_sums(sums);
    take_sums(sums[0], sums[1], to, factors[0], tiles[0]);
    if (two) take_sums(sums[2], sums[3], to, factors[1], tiles[1]);
  }

  // The only row tile by two panels.
  static void add_two_panels(const Work& work,
                             Columns to,
                             const Softmax::Factors& factors,
                             RowTile& tile) {
    const Operand rows = {.tiles = {work.weights}, .stride = 64, .step_bytes = 1024};
    alignas(64) float sums[4][kRowTile * 16];
    multiply_one_by_four(rows, panels_of(work), to.steps);
    store_sums(sums);
    take_sums(sums[0], sums[1], to, factors, tile);
    to.column += kValueColumns;
    if (to.column < to.value_width) take_sums(sums[2], sums[3], to, factors, tile);
  }

  static Operand panels_of(const Work& work) {
    const std::byte* second = work.panels + kValuePanelBytes;
    return {.tiles = {work.panels, work.panels + 64, second, second + 64},
            .stride = kValueLineBytes,
            .step_bytes = 16 * kValueLineBytes};
  }

  static void store_sums(float (&sums)[4][kRowTile * 16]) {
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
  }

  static void attend(const AttentionShape& shape,
                     const CachedPartition& cached,
                     std::span<RowTile> tiles,
                     PartitionTurn turn,
                     std::byte* memory) {
    const Work work(memory);
    Softmax::Factors factors[kTilesMax];
    const auto num_tiles = static_cast<int64_t>(tiles.size());
    const auto two_from = [&](int64_t i) {
      return tiles.subspan(static_cast<size_t>(i), i + 1 < num_tiles ? 2 : 1);
    };
    const int64_t steps = (Softmax::seen_by_any(tiles[tiles.size() - 1]) + 31) / 32;
    configure_tiles();
    for (int64_t i = 0; i < num_tiles; i += 2) {
      const std::span<RowTile> two = two_from(i);
      const int64_t any = Softmax::seen_by_any(two[two.size() - 1]);
      for (int64_t position = 0; position < any; position += 64)
        score(shape, cached, two, position, work.scores);
      for (size_t j = 0; j < two.size(); ++j) {
        const int64_t tile = i + static_cast<int64_t>(j);
        const float* scores = work.scores + static_cast<int64_t>(j) * kScores;
        Shared::weigh(shape, scores, turn, two[j], factors[tile], work.pairs);
        turn_weights(work.pairs, (Softmax::seen_by_any(two[j]) + 1) / 2, steps,
                     work.weights + tile * kWeightBytes);
      }
    }
    const int64_t columns = num_tiles == 1 ? 2 * kValueColumns : kValueColumns;
    for (int64_t column = 0; column < shape.value_width; column += columns) {
      const Columns to = {turn, column, shape.value_width, steps};
      Shared::pack_panel(shape, cached, column, work.panels);
      if (num_tiles > 1) {
        for (int64_t i = 0; i < num_tiles; i += 2)
          add_panel(work, i, to, factors + i, two_from(i));
        continue;
      }
      if (column + kValueColumns < shape.value_width)
        Shared::pack_panel(shape, cached, column + kValueColumns, work.panels + kValuePanelBytes);
      add_two_panels(work, to, factors[0], tiles[0]);
    }
    _tile_release();
  }

  static constexpr AttentionKernels kKernels = {.query_bytes = Shared::query_bytes,
                                                .work_bytes = work_bytes,
                                                .tiles_max = kTilesMax,
                                                .pack_queries = Shared::pack_queries,
                                                .values_are_finite = Shared::F32::values_are_finite,
                                                .attend = attend,
                                                .merge = Softmax::merge};
};

}  // namespace

namespace amx {

const AttentionKernels& attention_kernels() {
  return TileAttention::kKernels;
}

}  // namespace amx
}  // namespace wideep::math
