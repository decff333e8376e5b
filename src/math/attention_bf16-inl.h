// What the levels with bf16 products share (AVX-512-BF16, AMX): 512-bit vectors of bf16 pairs.
//
// Packed queries: [key_width / 2][16 rows][2]. Packed values of a partition: panels of 64 columns,
// [panel][256 pairs of positions][64 columns][2], positions that are not valid as zeros. Weights:
// [256 pairs of positions][16 rows][2].
#pragma once

#include "math/attention_f32-inl.h"
#include "math/simd_avx512-inl.h"

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace wideep::math {
namespace {

constexpr int64_t kPanelColumns = 64;
constexpr int64_t kPairs = kAttentionPartition / 2;
constexpr int64_t kPanelBytes = kPairs * kPanelColumns * 4;

inline int64_t num_value_panels(const AttentionShape& shape) {
  return (shape.value_width + kPanelColumns - 1) / kPanelColumns;
}

// Sixteen vectors of sixteen 32-bit values: row i becomes column i.
inline void transpose16(__m512i (&rows)[16]) {
  __m512i pairs[16];
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  __m512i fours[16];
  for (int i = 0; i < 16; i += 4) {
    fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
  // Quarter q of fours[4 g + j] holds column 4 q + j of rows 4 g … 4 g + 3.
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0x88);
    const __m512i b = _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0xDD);
    const __m512i d = _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0xDD);
    rows[j] = _mm512_shuffle_i32x4(a, b, 0x88);
    rows[8 + j] = _mm512_shuffle_i32x4(a, b, 0xDD);
    rows[4 + j] = _mm512_shuffle_i32x4(c, d, 0x88);
    rows[12 + j] = _mm512_shuffle_i32x4(c, d, 0xDD);
  }
}

struct Bf16Attention {
  using F32 = F32Attention<Simd>;
  using Softmax = AttentionSoftmax<Simd>;

  static int64_t query_bytes(const AttentionShape& shape) { return shape.key_width * kRowTile * 2; }

  static int64_t value_bytes(const AttentionShape& shape) {
    return num_value_panels(shape) * kPanelBytes;
  }

  static void pack_queries(const AttentionShape& shape,
                           std::span<const float* const> rows,
                           std::byte* out) {
    const auto num_rows = static_cast<int64_t>(rows.size());
    for (int64_t i = 0; i < shape.key_width; i += 32) {
      const int64_t width = shape.key_width - i < 32 ? shape.key_width - i : 32;
      __m512i lines[16];
      for (int64_t r = 0; r < kRowTile; ++r) {
        alignas(64) uint16_t line[32] = {};
        for (int64_t j = 0; j < width && r < num_rows; j += 16) {
          const float* from = rows[static_cast<size_t>(r)] + i + j;
          if (j + 16 <= width) {
            Simd::store_bf16(line + j, Simd::load(from));
          } else {
            Simd::store_bf16_first(line + j, Simd::load_first(from, width - j), width - j);
          }
        }
        lines[r] = _mm512_load_si512(line);
      }
      transpose16(lines);
      for (int64_t pair = 0; pair < width / 2; ++pair)
        _mm512_store_si512(out + (i / 2 + pair) * 64, lines[pair]);
    }
  }

  // Interleaves the values of two positions: the pairs of 32 columns in order.
  static void interleave(__m512i even, __m512i odd, std::byte* out) {
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    const __m512i a = _mm512_permutexvar_epi64(order, even);
    const __m512i b = _mm512_permutexvar_epi64(order, odd);
    _mm512_store_si512(out, _mm512_unpacklo_epi16(a, b));
    _mm512_store_si512(out + 64, _mm512_unpackhi_epi16(a, b));
  }

  // Values of 32 columns from `column` of one cached row; zeros where there is no such row.
  static __m512i load_values(const AttentionShape& shape, const std::byte* row, int64_t column) {
    const int64_t width = shape.value_width - column;
    if (row == nullptr || width <= 0) return _mm512_setzero_si512();
    if (width >= 32) return _mm512_loadu_si512(row + column * 2);
    return _mm512_maskz_loadu_epi16((1U << width) - 1U, row + column * 2);
  }

  // Valid positions, and zeros up to the next multiple of 32 (a step of an AMX product).
  static void pack_values(const AttentionShape& shape,
                          const CachedPartition& cached,
                          std::byte* out) {
    const int64_t num_pairs = (cached.count + 31) / 32 * 16;
    for (int64_t pair = 0; pair < num_pairs; ++pair) {
      const int64_t t = 2 * pair;
      const std::byte* even = t < cached.count ? cached.row(t) + cached.value_bytes : nullptr;
      const std::byte* odd =
          t + 1 < cached.count ? cached.row(t + 1) + cached.value_bytes : nullptr;
      std::byte* line = out + pair * kPanelColumns * 4;
      for (int64_t column = 0; column < shape.value_width; column += kPanelColumns) {
        interleave(load_values(shape, even, column), load_values(shape, odd, column), line);
        interleave(load_values(shape, even, column + 32), load_values(shape, odd, column + 32),
                   line + 128);
        line += kPanelBytes;
      }
    }
  }

  // Two vectors of weights as one of bf16 pairs.
  static __m512i pair(__m512 a, __m512 b) {
    const auto both = (__m512i)_mm512_cvtne2ps_pbh(b, a);
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, both);
  }

  static void weigh(const AttentionShape& shape,
                    const float* scores,
                    RowTile& tile,
                    std::byte* weights) {
    Softmax::softmax(shape.scale, scores, tile, [&](int64_t t, int64_t, __m512 a, __m512 b) {
      _mm512_store_si512(weights + t / 2 * 64, pair(a, b));
    });
  }
};

}  // namespace
}  // namespace wideep::math
