// Attention by products of bf16 pairs (vdpbf16ps). Scores: sixteen positions, whose pairs are
// broadcast from the cache, by sixteen rows. Values: up to six rows by the 64 columns of a panel.
#include "math/attention_bf16-inl.h"

namespace wideep::math {
namespace {

__m512bh as_bf16(__m512i v) {
  return (__m512bh)v;
}

struct DotAttention {
  using Shared = Bf16Attention;
  using Softmax = Bf16Attention::Softmax;
  static constexpr int64_t kTilesMax = 4;
  static constexpr int64_t kScoreBytes = kAttentionPartition * kRowTile * 4;
  static constexpr int64_t kWeightBytes = kPairs * kRowTile * 4;
  static constexpr int kRowsMax = 6;

  static int64_t work_bytes(const AttentionShape&) {
    return kTilesMax * (kScoreBytes + kWeightBytes);
  }

  // scores[16 positions][16 rows].
  static void score(const std::byte* queries,
                    const std::byte* keys,
                    int64_t token_bytes,
                    int64_t key_width,
                    float* scores) {
    __m512 sums[16];
    for (auto& sum : sums)
      sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < key_width * 2; i += 4) {
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

  // out[r][64 columns of a panel] = weights . values for R rows.
  template <int R>
  static void add_values(const std::byte* weights,
                         const std::byte* panel,
                         int64_t num_pairs,
                         int64_t columns,
                         float* const* out) {
    __m512 sums[R][4];
    for (auto& row : sums) {
      for (auto& sum : row)
        sum = _mm512_setzero_ps();
    }
    for (int64_t pair = 0; pair < num_pairs; ++pair) {
      __m512bh v[4];
      for (int c = 0; c < 4; ++c)
        v[c] = as_bf16(_mm512_load_si512(panel + pair * 256 + c * 64));
      for (int r = 0; r < R; ++r) {
        const int32_t two = *reinterpret_cast<const int32_t*>(weights + pair * 64 + r * 4);
        const __m512bh w = as_bf16(_mm512_set1_epi32(two));
        for (int c = 0; c < 4; ++c)
          sums[r][c] = _mm512_dpbf16_ps(sums[r][c], v[c], w);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < 4 && c * 16 < columns; ++c)
        Softmax::store(out[r] + c * 16, sums[r][c], columns - c * 16 < 16 ? columns - c * 16 : 16);
    }
  }

  static void add_rows(int64_t num_rows,
                       const std::byte* weights,
                       const std::byte* panel,
                       int64_t num_pairs,
                       int64_t columns,
                       float* const* out) {
    using AddValues = void (*)(const std::byte*, const std::byte*, int64_t, int64_t, float* const*);
    static constexpr AddValues kAdd[kRowsMax] = {add_values<1>, add_values<2>, add_values<3>,
                                                 add_values<4>, add_values<5>, add_values<6>};
    kAdd[num_rows - 1](weights, panel, num_pairs, columns, out);
  }

  static void weigh_values(const AttentionShape& shape,
                           const CachedPartition& cached,
                           RowTile& tile,
                           const std::byte* weights) {
    const int64_t num_pairs = (Softmax::seen_by_any(tile) + 1) / 2;
    // Passes of equal height: 16 rows are 6 + 5 + 5.
    const int64_t passes = (tile.num_rows + kRowsMax - 1) / kRowsMax;
    for (int64_t p = 0; p < num_value_panels(shape); ++p) {
      const int64_t column = p * kPanelColumns;
      const int64_t left = shape.value_width - column;
      for (int64_t pass = 0, r = 0; pass < passes; ++pass) {
        const int64_t rows = (tile.num_rows - r + passes - pass - 1) / (passes - pass);
        float* out[kRowsMax];
        for (int64_t i = 0; i < rows; ++i)
          out[i] = tile.out[static_cast<size_t>(r + i)] + column;
        add_rows(rows, weights + r * 4, cached.values + p * kPanelBytes, num_pairs,
                 left < kPanelColumns ? left : kPanelColumns, out);
        r += rows;
      }
    }
  }

  static void attend(const AttentionShape& shape,
                     const CachedPartition& cached,
                     std::span<RowTile> tiles,
                     std::byte* work) {
    auto* scores = reinterpret_cast<float*>(work);
    std::byte* weights = work + kTilesMax * kScoreBytes;
    const auto num_tiles = static_cast<int64_t>(tiles.size());
    const int64_t any = Softmax::seen_by_any(tiles[tiles.size() - 1]);
    for (int64_t c = 0; c * kAttentionTile < any; ++c) {
      const std::byte* keys = cached.tiles[static_cast<size_t>(c)] + cached.key_bytes;
      for (int64_t i = 0; i < num_tiles; ++i) {
        score(tiles[static_cast<size_t>(i)].queries, keys, cached.token_bytes, shape.key_width,
              scores + (i * kAttentionPartition + c * kAttentionTile) * kRowTile);
      }
    }
    for (int64_t i = 0; i < num_tiles; ++i) {
      RowTile& tile = tiles[static_cast<size_t>(i)];
      std::byte* w = weights + i * kWeightBytes;
      Shared::weigh(shape, scores + i * kAttentionPartition * kRowTile, tile, w);
      weigh_values(shape, cached, tile, w);
    }
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

namespace avx512bf16 {

const AttentionKernels& attention_kernels() {
  return DotAttention::kKernels;
}

}  // namespace avx512bf16
}  // namespace wideep::math
