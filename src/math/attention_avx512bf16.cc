// Attention by products of bf16 pairs (vdpbf16ps). Scores: sixteen positions, whose pairs are
// broadcast from the cache, by sixteen rows. Values: up to eight rows by the 32 columns of a panel.
#include "math/attention_bf16-inl.h"

namespace wideep::math {
namespace {

__m512bh as_bf16(__m512i v) {
  return (__m512bh)v;
}

struct DotAttention {
  using Shared = Bf16Attention;
  using Softmax = Bf16Attention::Softmax;
  static constexpr int64_t kTilesMax = 8;
  static constexpr int kRowsMax = 8;
  static constexpr int64_t kTilesAhead = 4;  // of keys (and values) that are asked for

  static int64_t work_bytes(const AttentionShape&) {
    return kScores * 4 + kTilesMax * kWeightBytes + kValuePanelBytes;
  }

  // What is needed later, [16] rows each: it comes into L2, which is near enough.
  struct Ahead {
    const std::byte* keys = nullptr;
    const std::byte* values = nullptr;  // null: they are among the keys
  };

  static Ahead ahead_of(const AttentionShape& shape, const CachedPartition& cached, int64_t tile) {
    const int64_t num_tiles = (cached.count + kAttentionTile - 1) / kAttentionTile;
    const CachedPartition* of = &cached;
    if (tile >= num_tiles) {
      of = cached.next;
      tile -= num_tiles;
      if (of == nullptr || tile * kAttentionTile >= of->count) return {};
    }
    const std::byte* rows = of->tiles[static_cast<size_t>(tile)];
    const bool values_apart = of->value_bytes >= of->key_bytes + shape.key_width * 2;
    return {.keys = rows + of->key_bytes,
            .values = values_apart ? rows + of->value_bytes : nullptr};
  }

  // scores[16 positions][16 rows]. Sixteen short streams are more than the hardware foresees: each
  // step asks for a line of what comes later.
  static void score(const std::byte* queries,
                    const std::byte* keys,
                    const Ahead& ahead,
                    const AttentionShape& shape,
                    int64_t token_bytes,
                    float* scores) {
    __m512 sums[16];
    for (auto& sum : sums)
      sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < shape.key_width * 2; i += 4) {
      const int64_t step = i / 4;
      const int64_t line = step % kAttentionTile * token_bytes + step / kAttentionTile * 64;
      if (ahead.keys != nullptr) __builtin_prefetch(ahead.keys + line, 0, 2);
      if (ahead.values != nullptr) __builtin_prefetch(ahead.values + line, 0, 2);
      const __m512bh q = as_bf16(_mm512_load_si512(queries + i * 16));
      const std::byte* key = keys + i;
      for (int t = 0; t < 16; t += 4, key += 4 * token_bytes) {
        for (int j = 0; j < 4; ++j) {
          const int32_t two = *reinterpret_cast<const int32_t*>(key + j * token_bytes);
          sums[t + j] = _mm512_dpbf16_ps(sums[t + j], q, as_bf16(_mm512_set1_epi32(two)));
        }
      }
    }
    for (int t = 0; t < 16; ++t)
      _mm512_store_ps(scores + t * kRowTile, sums[t]);
  }

  // The values of one partition from `column` on. Those of positions below `whole` (tiles whose
  // sixteen rows are valid, columns that all exist) lie in the cache only until somebody has gone
  // through them and left them in the panel.
  struct Values {
    const CachedPartition& cached;
    int64_t column;
    int64_t whole;
    std::byte* panel;
  };

  // What rows of a tile become from one panel.
  struct RowSums {
    RowTile& tile;
    const Softmax::Factors& factors;
    PartitionTurn turn;
    int64_t column;
    int64_t width;  // columns that exist
  };

  // A pair of positions by 32 columns: weights of R rows, values as they lie in a panel.
  template <int R>
  [[gnu::always_inline]] static void add_pair(const std::byte* weights,
                                              const std::byte* line,
                                              __m512 (&sums)[R][2]) {
    const __m512bh values[2] = {as_bf16(_mm512_load_si512(line)),
                                as_bf16(_mm512_load_si512(line + 64))};
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const int32_t two = *reinterpret_cast<const int32_t*>(weights + r * 4);
      const __m512bh w = as_bf16(_mm512_set1_epi32(two));
      sums[r][0] = _mm512_dpbf16_ps(sums[r][0], values[0], w);
      sums[r][1] = _mm512_dpbf16_ps(sums[r][1], values[1], w);
    }
  }

  // Sums of R rows from `first` on. kPack: leaves what it takes from the cache in the panel.
  template <int R, bool kPack>
  static void add_values(const std::byte* weights,
                         const Values& values,
                         int64_t num_pairs,
                         int64_t first,
                         const RowSums& to) {
    __m512 sums[R][2];
#pragma unroll
    for (int r = 0; r < R; ++r)
      sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    const std::byte* w = weights + first * 4;
    std::byte* line = values.panel;
    std::byte* end = values.panel + num_pairs * kValueLineBytes;
    if constexpr (kPack) {
      const int64_t stride = values.cached.token_bytes;
      for (int64_t t = 0; t < values.whole / kAttentionTile; ++t) {
        const std::byte* rows = values.cached.tiles[static_cast<size_t>(t)] +
                                values.cached.value_bytes + values.column * 2;
        for (int i = 0; i < kAttentionTile; i += 2) {
          Shared::put_pair(_mm512_loadu_si512(rows), _mm512_loadu_si512(rows + stride), line);
          add_pair<R>(w, line, sums);
          rows += 2 * stride;
          line += kValueLineBytes;
          w += 64;
        }
      }
    }
    for (; line < end; line += kValueLineBytes, w += 64)
      add_pair<R>(w, line, sums);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      float* out = to.tile.out[static_cast<size_t>(first + r)] + to.column;
      Shared::take_row(sums[r][0], sums[r][1], {out, to.width, first + r, to.factors, to.turn});
    }
  }

  template <bool kPack>
  static void add_rows(const std::byte* weights,
                       const Values& values,
                       int64_t first,
                       const RowSums& to) {
    using AddValues = void (*)(const std::byte*, const Values&, int64_t, int64_t, const RowSums&);
    static constexpr AddValues kAdd[kRowsMax] = {
        add_values<1, kPack>, add_values<2, kPack>, add_values<3, kPack>, add_values<4, kPack>,
        add_values<5, kPack>, add_values<6, kPack>, add_values<7, kPack>, add_values<8, kPack>};
    const int64_t num_pairs = (Softmax::seen_by_any(to.tile) + 1) / 2;
    const int64_t left = to.tile.num_rows - first;
    kAdd[(left < kRowsMax ? left : kRowsMax) - 1](weights, values, num_pairs, first, to);
  }

  static void add_panel(const std::byte* weights,
                        const Values& values,
                        bool is_first,
                        const RowSums& to) {
    for (int64_t first = 0; first < to.tile.num_rows; first += kRowsMax) {
      if (is_first && first == 0) {
        add_rows<true>(weights, values, first, to);
      } else {
        add_rows<false>(weights, values, first, to);
      }
    }
  }

  static void attend(const AttentionShape& shape,
                     const CachedPartition& cached,
                     std::span<RowTile> tiles,
                     PartitionTurn turn,
                     std::byte* work) {
    auto* scores = reinterpret_cast<float*>(work);
    std::byte* panel = work + kScores * 4;
    std::byte* weights = panel + kValuePanelBytes;
    Softmax::Factors factors[kTilesMax];
    for (size_t i = 0; i < tiles.size(); ++i) {
      const int64_t any = Softmax::seen_by_any(tiles[i]);
      for (int64_t t = 0; t < any; t += kAttentionTile) {
        const int64_t tile = t / kAttentionTile;
        const Ahead ahead = i == 0 ? ahead_of(shape, cached, tile + kTilesAhead) : Ahead{};
        score(tiles[i].queries, cached.tiles[static_cast<size_t>(tile)] + cached.key_bytes, ahead,
              shape, cached.token_bytes, scores + t * kRowTile);
      }
      Softmax::Sums sums;
      Shared::weigh(shape, scores, tiles[i], sums, weights + i * kWeightBytes);
      Softmax::take_sums(sums.max, sums.sum, turn, tiles[i], factors[i]);
    }
    for (int64_t column = 0; column < shape.value_width; column += kValueColumns) {
      const int64_t width = shape.value_width - column;
      const int64_t seen = Softmax::seen_by_any(tiles[0]);
      const int64_t whole = width < kValueColumns ? 0 : seen / kAttentionTile * kAttentionTile;
      Shared::pack_panel(shape, cached, column, {whole, cached.count},
                         panel + whole / 2 * kValueLineBytes);
      const Values values = {cached, column, whole, panel};
      for (size_t i = 0; i < tiles.size(); ++i) {
        const RowSums to = {tiles[i], factors[i], turn, column, width};
        add_panel(weights + i * kWeightBytes, values, i == 0, to);
      }
    }
  }
};

}  // namespace

namespace avx512bf16 {

const AttentionKernels& attention_kernels() {
  static constexpr AttentionKernels kKernels = bf16_kernels<DotAttention>();
  return kKernels;
}

}  // namespace avx512bf16
}  // namespace wideep::math
