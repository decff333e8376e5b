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

  static int64_t work_bytes(const AttentionShape&) {
    return kScores * 4 + kTilesMax * kWeightBytes + kValuePanelBytes;
  }

  // What is needed later, [16] rows each.
  struct Ahead {
    const std::byte* keys;
    const std::byte* values;  // null: they are among the keys
  };

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
      __builtin_prefetch(ahead.keys + line);
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

  // What rows of a tile become from one panel.
  struct RowSums {
    RowTile& tile;
    const Softmax::Factors& factors;
    PartitionTurn turn;
    int64_t column;
    int64_t width;  // columns that exist
  };

  // R rows from `first` on.
  template <int R>
  static void add_values(const std::byte* weights,
                         const std::byte* panel,
                         int64_t num_pairs,
                         int64_t first,
                         const RowSums& to) {
    __m512 sums[R][2];
    for (auto& row : sums) {
      for (auto& sum : row)
        sum = _mm512_setzero_ps();
    }
    for (int64_t pair = 0; pair < num_pairs; ++pair) {
      const __m512bh v[2] = {as_bf16(_mm512_load_si512(panel + pair * kValueLineBytes)),
                             as_bf16(_mm512_load_si512(panel + pair * kValueLineBytes + 64))};
      for (int r = 0; r < R; ++r) {
        const int32_t two =
            *reinterpret_cast<const int32_t*>(weights + pair * 64 + (first + r) * 4);
        const __m512bh w = as_bf16(_mm512_set1_epi32(two));
        sums[r][0] = _mm512_dpbf16_ps(sums[r][0], v[0], w);
        sums[r][1] = _mm512_dpbf16_ps(sums[r][1], v[1], w);
      }
    }
    for (int64_t r = 0; r < R; ++r) {
      float* out = to.tile.out[static_cast<size_t>(first + r)] + to.column;
      Shared::take_row(sums[r][0], sums[r][1], {out, to.width, first + r, to.factors, to.turn});
    }
  }

  static void add_panel(const std::byte* weights, const std::byte* panel, const RowSums& to) {
    using AddValues =
        void (*)(const std::byte*, const std::byte*, int64_t, int64_t, const RowSums&);
    static constexpr AddValues kAdd[kRowsMax] = {add_values<1>, add_values<2>, add_values<3>,
                                                 add_values<4>, add_values<5>, add_values<6>,
                                                 add_values<7>, add_values<8>};
    const int64_t num_pairs = (Softmax::seen_by_any(to.tile) + 1) / 2;
    for (int64_t r = 0; r < to.tile.num_rows; r += kRowsMax) {
      const int64_t left = to.tile.num_rows - r;
      kAdd[(left < kRowsMax ? left : kRowsMax) - 1](weights, panel, num_pairs, r, to);
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
    const bool values_apart = cached.value_bytes >= cached.key_bytes + shape.key_width * 2;
    for (size_t i = 0; i < tiles.size(); ++i) {
      const int64_t any = Softmax::seen_by_any(tiles[i]);
      for (int64_t t = 0; t < any; t += kAttentionTile) {
        const auto tile = static_cast<size_t>(t / kAttentionTile);
        const size_t next = t + kAttentionTile < any ? tile + 1 : tile;
        const Ahead ahead = {
            .keys = cached.tiles[next] + cached.key_bytes,
            .values = values_apart && i == 0 ? cached.tiles[tile] + cached.value_bytes : nullptr};
        score(tiles[i].queries, cached.tiles[tile] + cached.key_bytes, ahead, shape,
              cached.token_bytes, scores + t * kRowTile);
      }
      Softmax::Sums sums;
      Shared::weigh(shape, scores, tiles[i], sums, weights + i * kWeightBytes);
      Softmax::take_sums(sums.max, sums.sum, turn, tiles[i], factors[i]);
    }
    for (int64_t column = 0; column < shape.value_width; column += kValueColumns) {
      Shared::pack_panel(shape, cached, column, {0, cached.count}, panel);
      for (size_t i = 0; i < tiles.size(); ++i) {
        const RowSums to = {tiles[i], factors[i], turn, column, shape.value_width - column};
        add_panel(weights + i * kWeightBytes, panel, to);
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
