// Attention in f32 arithmetic: kF32 caches at every level, and kBf16 caches at the levels that have
// no bf16 products (their values are widened, and products of two bf16 numbers are exact in f32).
//
// Packed queries: [key_width][16 rows]. Keys and values are taken from the cache in blocks of 64
// positions by 64 values, so that a block, what is multiplied with it and the sums stay in L1.
#pragma once

#include "math/attention_softmax-inl.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace wideep::math {
namespace {

template <typename S>
struct F32Attention {
  using Float = typename S::Float;
  using Softmax = AttentionSoftmax<S>;
  static constexpr int64_t kLanes = S::kLanes;
  static constexpr int64_t kTilesMax = 4;
  // Score product: positions x vectors of rows held in registers.
  static constexpr int kRowVectors = static_cast<int>(kRowTile / kLanes);
  static constexpr int kPositions = S::kRegisters / 2 / kRowVectors;
  // Value product: rows x vectors of columns.
  static constexpr int kRows = 4;
  static constexpr int kColumnVectors = S::kRegisters / 8;

  // Positions and values of a block.
  static constexpr int64_t kBlock = 64;

  static int64_t query_bytes(const AttentionShape& shape) { return shape.key_width * kRowTile * 4; }

  static int64_t work_bytes(const AttentionShape& shape) {
    const int64_t tile = kAttentionPartition * kRowTile + kRowTile * shape.value_width;
    return (kTilesMax * tile + kBlock * kBlock) * 4;
  }

  static void pack_queries(const AttentionShape& shape,
                           std::span<const float* const> rows,
                           std::byte* out) {
    auto* packed = reinterpret_cast<float*>(out);
    const auto num_rows = static_cast<int64_t>(rows.size());
    for (int64_t r = 0; r < kRowTile; ++r) {
      const float* row = r < num_rows ? rows[static_cast<size_t>(r)] : nullptr;
      for (int64_t i = 0; i < shape.key_width; ++i)
        packed[i * kRowTile + r] = row == nullptr ? 0.0F : row[i];
    }
    if (shape.format == CacheFormat::kF32) return;
    for (int64_t i = 0; i < shape.key_width * kRowTile; i += kLanes)
      S::store(packed + i, S::round_to_bf16(S::load(packed + i)));
  }

  static bool values_are_finite(const AttentionShape& shape,
                                const CachedPartition& cached,
                                int64_t begin,
                                int64_t end) {
    for (int64_t position = begin; position < end; ++position) {
      const std::byte* value = cached.row(position) + cached.value_bytes;
      // x - x is 0 for finite x and NaN otherwise.
      Float sum = S::zero();
      Softmax::for_vectors(shape.value_width, [&](int64_t i, int64_t n) {
        const Float v = load_cached(shape.format, value, i, n);
        sum = S::add(sum, S::sub(v, v));
      });
      float lanes[kLanes];
      S::store(lanes, sum);
      for (const float lane : lanes) {
        if (lane != 0) return false;
      }
    }
    return true;
  }

  static Float load_cached(CacheFormat format, const std::byte* row, int64_t i, int64_t n) {
    if (format == CacheFormat::kF32) {
      return Softmax::load(reinterpret_cast<const float*>(row) + i, n);
    }
    const auto* values = reinterpret_cast<const uint16_t*>(row) + i;
    return n == kLanes ? S::load_bf16(values) : S::load_bf16_first(values, n);
  }

  // Values [begin, begin + width) of a head's keys, or of its values, at some positions.
  struct Block {
    int64_t position;
    int64_t num_positions;
    int64_t begin;
    int64_t width;
  };

  // Calls each(block) for blocks that cover [positions) x [width).
  template <typename Each>
  static void for_blocks(int64_t positions, int64_t width, Each each) {
    for (int64_t position = 0; position < positions; position += kBlock) {
      const int64_t left = positions - position;
      for (int64_t begin = 0; begin < width; begin += kBlock) {
        each(Block{.position = position,
                   .num_positions = left < kBlock ? left : kBlock,
                   .begin = begin,
                   .width = width - begin < kBlock ? width - begin : kBlock});
      }
    }
  }

  // As floats [positions][kBlock]; what is cached lies `offset_bytes` from the start of a row.
  static void load_block(const AttentionShape& shape,
                         const CachedPartition& cached,
                         int64_t offset_bytes,
                         const Block& block,
                         float* out) {
    for (int64_t t = 0; t < block.num_positions; ++t) {
      const std::byte* row = cached.row(block.position + t) + offset_bytes;
      Softmax::for_vectors(block.width, [&](int64_t i, int64_t n) {
        Softmax::store(out + t * kBlock + i, load_cached(shape.format, row, block.begin + i, n), n);
      });
    }
  }

  // Asks for a block of keys, and of values that lie apart from them, here or in what comes next.
  static void ask(const AttentionShape& shape, const CachedPartition& cached, const Block& block) {
    const int64_t value_bytes = cache_value_bytes(shape.format);
    const int64_t all = (cached.count + kBlock - 1) / kBlock * kBlock;
    const CachedPartition* of = block.position < all ? &cached : cached.next;
    if (of == nullptr) return;
    const int64_t first = block.position < all ? block.position : block.position - all;
    for (int64_t t = first; t < first + block.num_positions && t < of->count; ++t) {
      const std::byte* row = of->row(t) + block.begin * value_bytes;
      for (int64_t line = 0; line < block.width * value_bytes; line += 64) {
        __builtin_prefetch(row + of->key_bytes + line, 0, 2);
        if (values_are_apart(shape, *of)) __builtin_prefetch(row + of->value_bytes + line, 0, 2);
      }
    }
  }

  static bool values_are_apart(const AttentionShape& shape, const CachedPartition& cached) {
    const int64_t key_bytes = shape.key_width * cache_value_bytes(shape.format);
    return cached.value_bytes >= cached.key_bytes + key_bytes;
  }

  // What to ask for before positions [t, t + kPositions) of a block are scored: as much of the
  // positions behind it. Measured: short keys of a head among others by pieces, the way they are
  // read; long rows one after the other, as memory has them.
  static Block ahead_of(const AttentionShape& shape,
                        const CachedPartition& cached,
                        const Block& block,
                        int64_t t) {
    Block ahead = block;
    ahead.position += kBlock + t;
    ahead.num_positions = kPositions;
    if (values_are_apart(shape, cached)) return ahead;
    const auto rows_until = [&](int64_t done) {
      return (block.begin * block.num_positions + block.width * done) * kBlock /
             (shape.key_width * block.num_positions);
    };
    ahead.position = block.position + kBlock + rows_until(t);
    ahead.num_positions = rows_until(t + kPositions) - rows_until(t);
    ahead.begin = 0;
    ahead.width = shape.key_width;
    return ahead;
  }

  // scores[t][16] += keys[t] . queries for `P` positions.
  template <int P, int V>
  static void score(
      const float* queries, const float* keys, int64_t width, bool is_first, float* scores) {
    Float sums[P][V];
    for (int t = 0; t < P; ++t) {
      for (int v = 0; v < V; ++v)
        sums[t][v] = is_first ? S::zero() : S::load(scores + t * kRowTile + v * kLanes);
    }
    for (int64_t i = 0; i < width; ++i) {
      Float q[V];
      for (int v = 0; v < V; ++v)
        q[v] = S::load(queries + i * kRowTile + v * kLanes);
      for (int t = 0; t < P; ++t) {
        const Float key = S::set(keys[t * kBlock + i]);
        for (int v = 0; v < V; ++v)
          sums[t][v] = S::fma(key, q[v], sums[t][v]);
      }
    }
    for (int t = 0; t < P; ++t) {
      for (int v = 0; v < V; ++v)
        S::store(scores + t * kRowTile + v * kLanes, sums[t][v]);
    }
  }

  // scores[tile][512][16].
  static void score_tiles(const AttentionShape& shape,
                          const CachedPartition& cached,
                          std::span<const RowTile> tiles,
                          float* keys,
                          float* scores) {
    const int64_t any = Softmax::seen_by_any(tiles[tiles.size() - 1]);
    const int64_t positions = (any + kAttentionTile - 1) / kAttentionTile * kAttentionTile;
    for_blocks(positions, shape.key_width, [&](const Block& block) {
      load_block(shape, cached, cached.key_bytes, block, keys);
      for (int64_t t = 0; t < block.num_positions; t += kPositions) {
        ask(shape, cached, ahead_of(shape, cached, block, t));
        for (size_t i = 0; i < tiles.size(); ++i) {
          const auto* queries = reinterpret_cast<const float*>(tiles[i].queries);
          float* of_tile = scores + static_cast<int64_t>(i) * kAttentionPartition * kRowTile;
          score<kPositions, kRowVectors>(queries + block.begin * kRowTile, keys + t * kBlock,
                                         block.width, block.begin == 0,
                                         of_tile + (block.position + t) * kRowTile);
        }
      }
    });
  }

  // out[r][c] += weights[t][r] * values[t][c] for t < count, R rows and `lanes` of C vectors.
  template <int R, int C>
  static void add_values(
      const float* weights, const float* values, int64_t count, float* const* out, int64_t column) {
    Float sums[R][C];
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c)
        sums[r][c] = S::load(out[r] + column + c * kLanes);
    }
    for (int64_t t = 0; t < count; ++t) {
      Float v[C];
      for (int c = 0; c < C; ++c)
        v[c] = S::load(values + t * kBlock + c * kLanes);
      for (int r = 0; r < R; ++r) {
        const Float w = S::set(weights[t * kRowTile + r]);
        for (int c = 0; c < C; ++c)
          sums[r][c] = S::fma(w, v[c], sums[r][c]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c)
        S::store(out[r] + column + c * kLanes, sums[r][c]);
    }
  }

  // The same for one row and the last, short vector.
  static void add_last_values(
      const float* weights, const float* values, int64_t count, float* out, int64_t lanes) {
    Float sum = S::load_first(out, lanes);
    for (int64_t t = 0; t < count; ++t) {
      const Float v = S::load_first(values + t * kBlock, lanes);
      sum = S::fma(S::set(weights[t * kRowTile]), v, sum);
    }
    S::store_first(out, sum, lanes);
  }

  template <int R>
  static void add_value_rows(const Block& block,
                             const float* weights,
                             const float* values,
                             float* const* out) {
    const int64_t count = block.num_positions;
    int64_t i = 0;
    for (; i + kColumnVectors * kLanes <= block.width; i += kColumnVectors * kLanes)
      add_values<R, kColumnVectors>(weights, values + i, count, out, block.begin + i);
    for (; i + kLanes <= block.width; i += kLanes)
      add_values<R, 1>(weights, values + i, count, out, block.begin + i);
    if (i == block.width) return;
    for (int r = 0; r < R; ++r)
      add_last_values(weights + r, values + i, count, out[r] + block.begin + i, block.width - i);
  }

  static void attend(const AttentionShape& shape,
                     const CachedPartition& cached,
                     std::span<RowTile> tiles,
                     PartitionTurn turn,
                     std::byte* work) {
    auto* scores = reinterpret_cast<float*>(work);
    float* sums = scores + kTilesMax * kAttentionPartition * kRowTile;
    float* floats = sums + kTilesMax * kRowTile * shape.value_width;
    const auto num_tiles = static_cast<int64_t>(tiles.size());
    score_tiles(shape, cached, tiles, floats, scores);
    RowTile partials[kTilesMax];
    typename Softmax::Sums results[kTilesMax];
    for (int64_t i = 0; i < num_tiles; ++i) {
      RowTile& partial = partials[i];
      partial = tiles[static_cast<size_t>(i)];
      partial.max = results[i].max;
      partial.sum = results[i].sum;
      for (int64_t r = 0; r < partial.num_rows; ++r)
        partial.out[static_cast<size_t>(r)] = sums + (i * kRowTile + r) * shape.value_width;
      weigh(shape, scores + i * kAttentionPartition * kRowTile, partial, results[i]);
    }
    std::memset(sums, 0, static_cast<size_t>(num_tiles * kRowTile * shape.value_width) * 4);
    const int64_t any = Softmax::seen_by_any(tiles[tiles.size() - 1]);
    for_blocks(any, shape.value_width, [&](const Block& block) {
      load_block(shape, cached, cached.value_bytes, block, floats);
      for (int64_t i = 0; i < num_tiles; ++i) {
        const float* weights = scores + (i * kAttentionPartition + block.position) * kRowTile;
        add_tile_values(partials[i], weights, floats, block);
      }
    });
    for (int64_t i = 0; i < num_tiles; ++i)
      Softmax::merge(partials[i], shape.value_width, turn, tiles[static_cast<size_t>(i)]);
  }

  // Scores become weights, in place.
  static void weigh(const AttentionShape& shape,
                    float* scores,
                    const RowTile& tile,
                    typename Softmax::Sums& sums) {
    const bool rounded = shape.format == CacheFormat::kBf16;
    Softmax::softmax(shape.scale, scores, tile, sums, [&](int64_t t, int64_t v, Float a, Float b) {
      float* out = scores + t * kRowTile + v * kLanes;
      S::store(out, rounded ? S::round_to_bf16(a) : a);
      S::store(out + kRowTile, rounded ? S::round_to_bf16(b) : b);
    });
  }

  // The positions of the block that the tile sees.
  static void add_tile_values(const RowTile& tile,
                              const float* weights,
                              const float* values,
                              Block block) {
    const int64_t seen = Softmax::seen_by_any(tile) - block.position;
    if (seen <= 0) return;
    if (seen < block.num_positions) block.num_positions = seen;
    int64_t r = 0;
    for (; r + kRows <= tile.num_rows; r += kRows)
      add_value_rows<kRows>(block, weights + r, values, tile.out.data() + r);
    for (; r < tile.num_rows; ++r)
      add_value_rows<1>(block, weights + r, values, tile.out.data() + r);
  }

  static constexpr AttentionKernels kKernels = {.query_bytes = query_bytes,
                                                .work_bytes = work_bytes,
                                                .tiles_max = kTilesMax,
                                                .pack_queries = pack_queries,
                                                .values_are_finite = values_are_finite,
                                                .attend = attend,
                                                .merge = Softmax::merge};
};

}  // namespace
}  // namespace wideep::math
