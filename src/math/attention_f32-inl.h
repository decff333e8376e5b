// Attention in f32 arithmetic: kF32 caches at every level, and kBf16 caches at the levels that have
// no bf16 products (their values are widened, sixteen cached rows at a time, and the products of
// two bf16 numbers are exact in f32).
//
// Packed queries: [key_width][16 rows]. Values are read where they lie.
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
  static constexpr int kPositions = S::kRegisters / 2 / kRowVectors / (kLanes == 8 ? 2 : 1);
  // Value product: rows x vectors of columns.
  static constexpr int kRows = 4;
  static constexpr int kColumnVectors = S::kRegisters / 8;

  // Sixteen cached rows as floats.
  struct Rows {
    const float* first;
    int64_t stride;
  };

  static int64_t query_bytes(const AttentionShape& shape) { return shape.key_width * kRowTile * 4; }

  static int64_t widened_values(const AttentionShape& shape) {
    const int64_t width = shape.key_width > shape.value_width ? shape.key_width : shape.value_width;
    return kAttentionTile * width;
  }

  static int64_t work_bytes(const AttentionShape& shape) {
    const int64_t tile = kAttentionPartition * kRowTile + kRowTile * shape.value_width;
    return (kTilesMax * tile + widened_values(shape)) * 4;
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

  // Part of a cached row: keys or values of a head.
  struct Part {
    int64_t offset_bytes;
    int64_t width;
  };

  // That part of the first `count` cached rows of a tile.
  static Rows cached_rows(const AttentionShape& shape,
                          const CachedPartition& cached,
                          int64_t tile,
                          Part part,
                          int64_t count,
                          float* widened) {
    const std::byte* first = cached.tiles[static_cast<size_t>(tile)] + part.offset_bytes;
    if (shape.format == CacheFormat::kF32)
      return {reinterpret_cast<const float*>(first), cached.token_bytes / 4};
    for (int64_t t = 0; t < count; ++t) {
      Softmax::for_vectors(part.width, [&](int64_t i, int64_t n) {
        const Float v = load_cached(shape.format, first + t * cached.token_bytes, i, n);
        Softmax::store(widened + t * part.width + i, v, n);
      });
    }
    return {widened, part.width};
  }

  // scores[t][16] = keys[t] . queries for `P` positions.
  template <int P, int V>
  static void score(const float* queries, Rows keys, int64_t key_width, float* scores) {
    Float sums[P][V];
    for (int t = 0; t < P; ++t) {
      for (int v = 0; v < V; ++v)
        sums[t][v] = S::zero();
    }
    for (int64_t i = 0; i < key_width; ++i) {
      Float q[V];
      for (int v = 0; v < V; ++v)
        q[v] = S::load(queries + i * kRowTile + v * kLanes);
      for (int t = 0; t < P; ++t) {
        const Float key = S::set(keys.first[t * keys.stride + i]);
        for (int v = 0; v < V; ++v)
          sums[t][v] = S::fma(key, q[v], sums[t][v]);
      }
    }
    for (int t = 0; t < P; ++t) {
      for (int v = 0; v < V; ++v)
        S::store(scores + t * kRowTile + v * kLanes, sums[t][v]);
    }
  }

  static void score_tile(const AttentionShape& shape, const RowTile& tile, Rows keys, float* out) {
    const auto* queries = reinterpret_cast<const float*>(tile.queries);
    for (int64_t t = 0; t < kAttentionTile; t += kPositions) {
      const Rows some = {keys.first + t * keys.stride, keys.stride};
      score<kPositions, kRowVectors>(queries, some, shape.key_width, out + t * kRowTile);
    }
  }

  // out[r][c] += weights[t][r] * values[t][c] for t < count, R rows and `lanes` of C vectors.
  template <int R, int C>
  static void add_values(
      const float* weights, Rows values, int64_t count, float* const* out, int64_t column) {
    Float sums[R][C];
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c)
        sums[r][c] = S::load(out[r] + column + c * kLanes);
    }
    for (int64_t t = 0; t < count; ++t) {
      Float v[C];
      for (int c = 0; c < C; ++c)
        v[c] = S::load(values.first + t * values.stride + column + c * kLanes);
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
      const float* weights, Rows values, int64_t count, float* out, int64_t lanes) {
    Float sum = S::load_first(out, lanes);
    for (int64_t t = 0; t < count; ++t) {
      const Float v = S::load_first(values.first + t * values.stride, lanes);
      sum = S::fma(S::set(weights[t * kRowTile]), v, sum);
    }
    S::store_first(out, sum, lanes);
  }

  template <int R>
  static void add_value_rows(const AttentionShape& shape,
                             const float* weights,
                             Rows values,
                             int64_t count,
                             float* const* out) {
    int64_t column = 0;
    for (; column + kColumnVectors * kLanes <= shape.value_width; column += kColumnVectors * kLanes)
      add_values<R, kColumnVectors>(weights, values, count, out, column);
    for (; column + kLanes <= shape.value_width; column += kLanes)
      add_values<R, 1>(weights, values, count, out, column);
    if (column == shape.value_width) return;
    const Rows last = {values.first + column, values.stride};
    for (int r = 0; r < R; ++r)
      add_last_values(weights + r, last, count, out[r] + column, shape.value_width - column);
  }

  static void attend(const AttentionShape& shape,
                     const CachedPartition& cached,
                     std::span<RowTile> tiles,
                     PartitionTurn turn,
                     std::byte* work) {
    auto* scores = reinterpret_cast<float*>(work);
    float* sums = scores + kTilesMax * kAttentionPartition * kRowTile;
    float* widened = sums + kTilesMax * kRowTile * shape.value_width;
    const auto num_tiles = static_cast<int64_t>(tiles.size());
    const int64_t any = Softmax::seen_by_any(tiles[tiles.size() - 1]);
    for (int64_t c = 0; c * kAttentionTile < any; ++c) {
      const Rows keys = cached_rows(shape, cached, c, {cached.key_bytes, shape.key_width},
                                    kAttentionTile, widened);
      for (int64_t i = 0; i < num_tiles; ++i) {
        float* out = scores + (i * kAttentionPartition + c * kAttentionTile) * kRowTile;
        score_tile(shape, tiles[static_cast<size_t>(i)], keys, out);
      }
    }
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
    for (int64_t c = 0; c * kAttentionTile < any; ++c) {
      const int64_t seen = any - c * kAttentionTile;
      const int64_t count = seen < kAttentionTile ? seen : kAttentionTile;
      const Rows values =
          cached_rows(shape, cached, c, {cached.value_bytes, shape.value_width}, count, widened);
      for (int64_t i = 0; i < num_tiles; ++i) {
        const float* weights = scores + (i * kAttentionPartition + c * kAttentionTile) * kRowTile;
        add_tile_values(shape, partials[i], weights, values, c * kAttentionTile);
      }
    }
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

  static void add_tile_values(const AttentionShape& shape,
                              const RowTile& tile,
                              const float* weights,
                              Rows values,
                              int64_t first_position) {
    const int64_t seen = Softmax::seen_by_any(tile) - first_position;
    if (seen <= 0) return;
    const int64_t count = seen < kAttentionTile ? seen : kAttentionTile;
    int64_t r = 0;
    for (; r + kRows <= tile.num_rows; r += kRows)
      add_value_rows<kRows>(shape, weights + r, values, count, tile.out.data() + r);
    for (; r < tile.num_rows; ++r)
      add_value_rows<1>(shape, weights + r, values, count, tile.out.data() + r);
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
