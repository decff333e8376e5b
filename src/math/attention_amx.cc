// Attention on AMX tiles (tdpbf16ps). Scores: a tile of keys is sixteen cached rows as they lie in
// the cache, a tile of queries is packed. Values: the weights of a row tile are turned once per
// partition into [block of 32 positions][16 rows][32], the values are packed in pairs.
//
// Sums of two by two tiles (or four by one for a single row tile) stay in registers over the whole
// key and over the whole partition.
#include "math/amx_tiles-inl.h"
#include "math/attention_bf16-inl.h"

#include <cstring>

namespace wideep::math {
namespace {

// Where the tiles of one operand start, their stride, and the bytes from one step to the next.
struct Operand {
  const std::byte* tiles[4];
  int64_t stride;
  int64_t step_bytes;
};

// Sums 0 … 3 = a0 b0, a0 b1, a1 b0, a1 b1 over `steps` steps of 32 products. `b` stays in L1 from
// call to call; `a` streams by, and a hint keeps it from pushing `b` out.
inline void multiply_two_by_two(const Operand& a, const Operand& b, int64_t steps) {
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
  static constexpr int64_t kStepsAtOnce = 4;  // of a single row tile: 16 KiB of packed values

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

  // The keys of 64 positions. Past the end the last tile again: nobody reads those scores.
  static Operand keys_of(const CachedPartition& cached, int64_t position) {
    const int64_t last_tile = (cached.count - 1) / kAttentionTile;
    Operand keys = {.tiles = {}, .stride = cached.token_bytes, .step_bytes = 64};
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t tile = position / kAttentionTile + i;
      const auto index = static_cast<size_t>(tile < last_tile ? tile : last_tile);
      keys.tiles[i] = cached.tiles[index] + cached.key_bytes;
    }
    return keys;
  }

  // Scores of one row tile.
  static void score_one(const AttentionShape& shape,
                        const CachedPartition& cached,
                        const RowTile& tile,
                        float* scores) {
    const Operand queries = {.tiles = {tile.queries}, .stride = 64, .step_bytes = 1024};
    for (int64_t position = 0; position < Softmax::seen_by_any(tile); position += 64) {
      zero_sums();
      multiply_four_by_one(keys_of(cached, position), queries, shape.key_width / 32);
      float* out = scores + position * kRowTile;
      _tile_stored(0, out, 64);
      _tile_stored(1, out + 256, 64);
      _tile_stored(2, out + 512, 64);
      _tile_stored(3, out + 768, 64);
    }
  }

  // Scores of two row tiles, the second behind the first.
  static void score_two(const AttentionShape& shape,
                        const CachedPartition& cached,
                        std::span<const RowTile> tiles,
                        float* scores) {
    const Operand queries = {
        .tiles = {tiles[0].queries, tiles[1].queries}, .stride = 64, .step_bytes = 1024};
    for (int64_t position = 0; position < Softmax::seen_by_any(tiles[1]); position += 64) {
      Operand keys = keys_of(cached, position);
      for (int half = 0; half < 2; ++half) {
        zero_sums();
        multiply_two_by_two(keys, queries, shape.key_width / 32);
        float* out = scores + (position + half * 32) * kRowTile;
        _tile_stored(0, out, 64);
        _tile_stored(1, out + kScores, 64);
        _tile_stored(2, out + 256, 64);
        _tile_stored(3, out + kScores + 256, 64);
        keys.tiles[0] = keys.tiles[2];
        keys.tiles[1] = keys.tiles[3];
      }
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

  // Takes sums [16 rows] of a panel's two vectors into the results.
  static void take_sums(const float* a,
                        const float* b,
                        const Columns& to,
                        const Softmax::Factors& factors,
                        RowTile& tile) {
    if (to.value_width - to.column >= kValueColumns) {
      if (to.turn.first && to.turn.last) return take_rows<true, true>(a, b, to, factors, tile);
      if (to.turn.first) return take_rows<true, false>(a, b, to, factors, tile);
      if (to.turn.last) return take_rows<false, true>(a, b, to, factors, tile);
      return take_rows<false, false>(a, b, to, factors, tile);
    }
    for (int64_t r = 0; r < tile.num_rows; ++r) {
      float* out = tile.out[static_cast<size_t>(r)] + to.column;
      Shared::take_row(_mm512_load_ps(a + r * 16), _mm512_load_ps(b + r * 16),
                       {out, to.value_width - to.column, r, factors, to.turn});
    }
  }

  template <bool kFirst, bool kLast>
  static void take_rows(const float* a,
                        const float* b,
                        const Columns& to,
                        const Softmax::Factors& factors,
                        RowTile& tile) {
    for (int64_t r = 0; r < tile.num_rows; ++r) {
      float* out = tile.out[static_cast<size_t>(r)] + to.column;
      const PartitionTurn turn = {.first = kFirst, .last = kLast};
      Shared::take_row(_mm512_load_ps(a + r * 16), _mm512_load_ps(b + r * 16),
                       {out, kValueColumns, r, factors, turn});
    }
  }

  // The results that are about to be written come into the cache while their sums are computed.
  static void fetch_results(const RowTile& tile, int64_t column) {
    for (int64_t r = 0; r < tile.num_rows; ++r) {
      float* out = tile.out[static_cast<size_t>(r)] + column;
      __builtin_prefetch(out, 1);
      __builtin_prefetch(out + 16, 1);
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
    for (const RowTile& tile : tiles)
      fetch_results(tile, to.column);
    alignas(64) float sums[4][kRowTile * 16];
    zero_sums();
    multiply_two_by_two(rows, panels_of(work), to.steps);
    store_sums(sums);
    take_sums(sums[0], sums[1], to, factors[0], tiles[0]);
    if (two) take_sums(sums[2], sums[3], to, factors[1], tiles[1]);
  }

  // The only row tile by the 64 columns of two panels, which are packed a few positions at a time
  // and used before they leave the level-one cache.
  static void add_two_panels(const AttentionShape& shape,
                             const CachedPartition& cached,
                             const Work& work,
                             Columns to,
                             const Softmax::Factors& factors,
                             RowTile& tile) {
    zero_sums();
    for (int64_t step = 0; step < to.steps; step += kStepsAtOnce) {
      const int64_t steps = to.steps - step < kStepsAtOnce ? to.steps - step : kStepsAtOnce;
      const Shared::Positions positions = {step * 32, (step + steps) * 32};
      Shared::pack_panel(shape, cached, to.column, positions, work.panels);
      Shared::pack_panel(shape, cached, to.column + kValueColumns, positions,
                         work.panels + kValuePanelBytes);
      const Operand rows = {
          .tiles = {work.weights + step * 1024}, .stride = 64, .step_bytes = 1024};
      multiply_one_by_four(rows, panels_of(work), steps);
    }
    alignas(64) float sums[4][kRowTile * 16];
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

  // One row tile, as in decoding.
  static void attend_one(const AttentionShape& shape,
                         const CachedPartition& cached,
                         RowTile& tile,
                         PartitionTurn turn,
                         const Work& work) {
    const int64_t any = Softmax::seen_by_any(tile);
    const int64_t steps = (any + 31) / 32;
    score_one(shape, cached, tile, work.scores);
    Softmax::Sums sums;
    Softmax::Factors factors;
    Shared::weigh(shape, work.scores, tile, sums, work.pairs);
    Softmax::take_sums(sums.max, sums.sum, turn, tile, factors);
    turn_weights(work.pairs, (any + 1) / 2, steps, work.weights);
    for (int64_t column = 0; column < shape.value_width; column += 2 * kValueColumns) {
      add_two_panels(shape, cached, work, {turn, column, shape.value_width, steps}, factors, tile);
    }
  }

  // Many row tiles.
  static void attend_many(const AttentionShape& shape,
                          const CachedPartition& cached,
                          std::span<RowTile> tiles,
                          PartitionTurn turn,
                          const Work& work) {
    Softmax::Factors factors[kTilesMax];
    const auto num_tiles = static_cast<int64_t>(tiles.size());
    const auto two_from = [&](int64_t i) {
      return tiles.subspan(static_cast<size_t>(i), i + 1 < num_tiles ? 2 : 1);
    };
    const int64_t steps = (Softmax::seen_by_any(tiles[tiles.size() - 1]) + 31) / 32;
    for (int64_t i = 0; i < num_tiles; i += 2) {
      const std::span<RowTile> two = two_from(i);
      if (two.size() == 2) {
        score_two(shape, cached, two, work.scores);
      } else {
        score_one(shape, cached, two[0], work.scores);
      }
      for (size_t j = 0; j < two.size(); ++j) {
        const int64_t tile = i + static_cast<int64_t>(j);
        const float* scores = work.scores + static_cast<int64_t>(j) * kScores;
        Softmax::Sums sums;
        Shared::weigh(shape, scores, two[j], sums, work.pairs);
        Softmax::take_sums(sums.max, sums.sum, turn, two[j], factors[tile]);
        turn_weights(work.pairs, (Softmax::seen_by_any(two[j]) + 1) / 2, steps,
                     work.weights + tile * kWeightBytes);
      }
    }
    for (int64_t column = 0; column < shape.value_width; column += kValueColumns) {
      Shared::pack_panel(shape, cached, column, {0, steps * 32}, work.panels);
      for (int64_t i = 0; i < num_tiles; i += 2) {
        add_panel(work, i, {turn, column, shape.value_width, steps}, factors + i, two_from(i));
      }
    }
  }

  static void attend(const AttentionShape& shape,
                     const CachedPartition& cached,
                     std::span<RowTile> tiles,
                     PartitionTurn turn,
                     std::byte* memory) {
    const Work work(memory);
    configure_tiles();
    if (tiles.size() == 1) {
      attend_one(shape, cached, tiles[0], turn, work);
    } else {
      attend_many(shape, cached, tiles, turn, work);
    }
    _tile_release();
  }
};

}  // namespace

namespace amx {

const AttentionKernels& attention_kernels() {
  static constexpr AttentionKernels kKernels = bf16_kernels<TileAttention>();
  return kKernels;
}

}  // namespace amx
}  // namespace wideep::math
