// What the levels with bf16 products share (AVX-512-BF16, AMX): 512-bit vectors of bf16 pairs.
//
// Packed queries: [key_width / 2][16 rows][2]. Values are packed a panel of 32 columns at a time,
// when every row tile has its weights: [256 pairs of positions][32 columns][2], positions that are
// not valid as zeros. Packing takes the columns in the order that costs least; `in_order` puts
// results right.
#pragma once

#include "math/attention_f32-inl.h"
#include "math/simd_avx512-inl.h"

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace wideep::math {
namespace {

constexpr int64_t kPairs = kAttentionPartition / 2;
constexpr int64_t kValueColumns = 32;
constexpr int64_t kValueLineBytes = kValueColumns * 4;
constexpr int64_t kValuePanelBytes = kPairs * kValueLineBytes;
constexpr int64_t kScores = kAttentionPartition * kRowTile;
constexpr int64_t kWeightBytes = kPairs * kRowTile * 4;

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

  static void pack_queries(const AttentionShape& shape,
                           std::span<const float* const> rows,
                           std::byte* out) {
    for (int64_t i = 0; i < shape.key_width; i += 32) {
      const int64_t width = shape.key_width - i < 32 ? shape.key_width - i : 32;
      __m512i lines[16];
      for (size_t r = 0; r < kRowTile; ++r)
        lines[r] = r < rows.size() ? round_values(rows[r] + i, width) : _mm512_setzero_si512();
      transpose16(lines);
      for (int64_t pair = 0; pair < width / 2; ++pair)
        _mm512_store_si512(out + (i / 2 + pair) * 64, lines[pair]);
    }
  }

  // 32 values as bf16; zeros past `width`.
  static __m512i round_values(const float* from, int64_t width) {
    if (width == 32) return (__m512i)_mm512_cvtne2ps_pbh(Simd::load(from + 16), Simd::load(from));
    const __m512 low = Softmax::load(from, width < 16 ? width : 16);
    const __m512 high = width > 16 ? Softmax::load(from + 16, width - 16) : Simd::zero();
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
  }

  // 32 values of a cached row; zeros past `width` and where there is no row.
  static __m512i load_values(const std::byte* row, int64_t width) {
    if (row == nullptr) return _mm512_setzero_si512();
    if (width >= kValueColumns) return _mm512_loadu_si512(row);
    return _mm512_maskz_loadu_epi16((1U << width) - 1U, row);
  }

  // Positions [begin, end), begin a multiple of 16 (32 for AMX).
  struct Positions {
    int64_t begin;
    int64_t end;
  };

  // The values from `column` on of some positions: those of the partition that are valid, zeros
  // beyond, up to the next multiple of 32 (a step of an AMX product).
  static void pack_panel(const AttentionShape& shape,
                         const CachedPartition& cached,
                         int64_t column,
                         Positions positions,
                         std::byte* panel) {
    const int64_t width = shape.value_width - column;
    const int64_t offset = cached.value_bytes + column * 2;
    const int64_t stride = cached.token_bytes;
    std::byte* line = panel;
    for (int64_t first = positions.begin; first < (positions.end + 31) / 32 * 32;
         first += kAttentionTile) {
      const int64_t left = cached.count - first;
      const std::byte* rows =
          left > 0 ? cached.tiles[static_cast<size_t>(first / kAttentionTile)] + offset : nullptr;
      if (left >= kAttentionTile && width >= kValueColumns) {
        for (int t = 0; t < kAttentionTile; t += 2, rows += 2 * stride, line += kValueLineBytes)
          put_pair(_mm512_loadu_si512(rows), _mm512_loadu_si512(rows + stride), line);
        continue;
      }
      for (int64_t t = 0; t < kAttentionTile; t += 2, line += kValueLineBytes) {
        put_pair(load_values(t < left ? rows + t * stride : nullptr, width),
                 load_values(t + 1 < left ? rows + (t + 1) * stride : nullptr, width), line);
      }
    }
  }

  // First the pairs of columns 0-3, 8-11, 16-19, 24-27, then those of 4-7, 12-15, 20-23, 28-31.
  static void put_pair(__m512i even, __m512i odd, std::byte* line) {
    _mm512_store_si512(line, _mm512_unpacklo_epi16(even, odd));
    _mm512_store_si512(line + 64, _mm512_unpackhi_epi16(even, odd));
  }

  // The sums of a panel's two vectors as columns 0-15 and 16-31.
  static void in_order(__m512& a, __m512& b) {
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i high =
        _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    const __m512 first = _mm512_permutex2var_ps(a, low, b);
    b = _mm512_permutex2var_ps(a, high, b);
    a = first;
  }

  // Where the sums of a panel go: `width` columns of row r of a tile.
  struct Destination {
    float* out;
    int64_t width;
    int64_t r;
    const Softmax::Factors& factors;
    PartitionTurn turn;
  };

  static void take_row(__m512 a, __m512 b, const Destination& to) {
    in_order(a, b);
    take_half(a, to.width < 16 ? to.width : 16, to.out, to);
    if (to.width > 16) take_half(b, to.width < 32 ? to.width - 16 : 16, to.out + 16, to);
  }

  static void take_half(__m512 sums, int64_t width, float* out, const Destination& to) {
    const __m512 before = to.turn.first ? Simd::zero() : Softmax::load(out, width);
    Softmax::store(out, Softmax::take_values(sums, before, to.factors, to.r, to.turn), width);
  }

  // Two vectors of weights as one of bf16 pairs.
  static __m512i pair(__m512 a, __m512 b) {
    const auto both = (__m512i)_mm512_cvtne2ps_pbh(b, a);
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, both);
  }

  // The tile's weights [256 pairs of positions][16 rows][2] and the sums of its rows.
  static void weigh(const AttentionShape& shape,
                    const float* scores,
                    const RowTile& tile,
                    Softmax::Sums& sums,
                    std::byte* weights) {
    Softmax::softmax(shape.scale, scores, tile, sums, [&](int64_t t, int64_t, __m512 a, __m512 b) {
      _mm512_store_si512(weights + t / 2 * 64, pair(a, b));
    });
  }
};

// The kernels of a level: `Level` has work_bytes, kTilesMax and attend.
template <typename Level>
constexpr AttentionKernels bf16_kernels() {
  return {.query_bytes = Bf16Attention::query_bytes,
          .work_bytes = Level::work_bytes,
          .tiles_max = Level::kTilesMax,
          .pack_queries = Bf16Attention::pack_queries,
          .values_are_finite = Bf16Attention::F32::values_are_finite,
          .attend = Level::attend,
          .merge = Bf16Attention::Softmax::merge};
}

}  // namespace
}  // namespace wideep::math
