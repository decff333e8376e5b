// Vectors of AVX2 + FMA + F16C for the generic kernels (gemm_fma-inl.h, gemm_int-inl.h).
#pragma once

#include "math/packed_layout.h"
#include "math/simd_avx2-inl.h"

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace wideep::math {
namespace {

struct Vec : Simd {
  using F = Float;
  static constexpr int kRowsMax = 4;
  static constexpr int kOnePassRows = 1;        // rows that keep sums of all columns in registers
  static constexpr int64_t kBlockBytes = 8192;  // of weights in L1, beside the next block and rows

  static F broadcast(const float* p) { return _mm256_broadcast_ss(p); }
};

inline __m256i load_bytes(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

struct F32Weights {
  static constexpr int64_t kValueBytes = 4;

  static void load(const std::byte* line, int c, __m256 (&even)[2], __m256 (&odd)[2]) {
    const auto* w = reinterpret_cast<const float*>(line) + c * 16;
    for (int h = 0; h < 2; ++h) {
      even[h] = Vec::load(w + 8 * h);
      odd[h] = Vec::load(w + kPanelCols + 8 * h);
    }
  }

  static void arrange(__m256&, __m256&) {}

  static constexpr int64_t column(int v) { return v * 8; }
};

struct Bf16Weights {
  static constexpr int64_t kValueBytes = 2;

  static void load(const std::byte* line, int c, __m256 (&even)[2], __m256 (&odd)[2]) {
    for (int h = 0; h < 2; ++h) {
      const __m256i pairs = load_bytes(line + c * 64 + h * 32);
      even[h] = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
      odd[h] = _mm256_castsi256_ps(
          _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xFFFF0000U))));
    }
  }

  static void arrange(__m256&, __m256&) {}

  static constexpr int64_t column(int v) { return v * 8; }
};

struct Fp8Weights {
  static constexpr int64_t kValueBytes = 1;

  static constexpr float kFactor = 256;  // what is loaded is that much too small

  // e4m3 codes in the high bytes of 16 words -> f32, through f16.
  static void widen(__m256i high, __m256 (&out)[2]) {
    const __m256i magnitude = _mm256_set1_epi16(0x7F00);
    const __m256i nan = _mm256_cmpeq_epi16(_mm256_and_si256(high, magnitude), magnitude);
    const __m256i sign_and_magnitude = _mm256_set1_epi16(static_cast<int16_t>(0xBF80));
    const __m256i number = _mm256_and_si256(_mm256_srai_epi16(high, 1), sign_and_magnitude);
    const __m256i half = _mm256_or_si256(number, nan);
    out[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(half));
    out[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1));
  }

  static void load(const std::byte* line, int c, __m256 (&even)[2], __m256 (&odd)[2]) {
    const __m256i codes = load_bytes(line + c * 32);
    widen(_mm256_slli_epi16(codes, 8), even);
    widen(codes, odd);
  }

  // x: columns 0-3 and 16-19 of what was loaded, y: 4-7 and 20-23.
  static void arrange(__m256& x, __m256& y) {
    const __m256 low = _mm256_permute2f128_ps(x, y, 0x20);
    y = _mm256_permute2f128_ps(x, y, 0x31);
    x = low;
  }

  // Vector pairs come as 0-7 | 16-23, 8-15 | 24-31, and the same behind 32.
  static constexpr int64_t column(int v) { return v / 4 * 32 + v % 2 * 16 + v % 4 / 2 * 8; }
};

struct IntVec {
  static constexpr int kRowsMax = 4;
  static constexpr int kOnePassRows = 0;
  static constexpr int kWeightRegisters = 2;
  static constexpr int kInt4RowsMax = 4;
  static constexpr int kInt4Vecs = 2;
  static constexpr int kQuadBytes = 8;

  // Codes of inputs 0, 2 and of inputs 1, 3 as words.
  struct Weights {
    __m256i even;
    __m256i odd;
  };

  using Quad = Weights;
  using Nibbles = __m256i;

  static Vec::Int load(const float* p) { return _mm256_castps_si256(Vec::load(p)); }

  static void store(float* p, Vec::Int v) { Vec::store(p, _mm256_castsi256_ps(v)); }

  static Weights load_weights(const std::byte* p) {
    const __m256i codes = load_bytes(p);
    return {.even = _mm256_and_si256(codes, _mm256_set1_epi16(0xFF)),
            .odd = _mm256_srli_epi16(codes, 8)};
  }

  // Four codes of a row as its quad.
  static void prepare_quad(const std::byte* x, std::byte* quad) {
    const __m128i codes = _mm_cvtsi32_si128(*reinterpret_cast<const int32_t*>(x));
    const __m128i words = _mm_shufflelo_epi16(_mm_cvtepi8_epi16(codes), _MM_SHUFFLE(3, 1, 2, 0));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(quad), words);
  }

  static Quad load_quad(const std::byte* quad) {
    return {.even = broadcast(quad), .odd = broadcast(quad + 4)};
  }

  static Vec::Int dot(Vec::Int sums, const Weights& w, const Quad& x) {
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(w.even, x.even));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(w.odd, x.odd));
  }

  static void load_nibbles(const std::byte* p, Nibbles& low, Nibbles& high) {
    const __m256i mask = _mm256_set1_epi8(0xF);
    const __m256i codes = load_bytes(p);
    low = _mm256_and_si256(codes, mask);
    high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), mask);
  }

  static __m256i broadcast(const std::byte* x) {
    return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(x));
  }

  // A group's sums as words, of inputs 0, 1 and of 2, 3 of its quads: 8 x 2 x 15 x 128 at most.
  static Vec::Int start_group(int32_t) { return _mm256_setzero_si256(); }

  static Vec::Int dot_nibbles(Vec::Int sums, Nibbles w, __m256i x) {
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(w, x));
  }

  static Vec::Int end_group(Vec::Int sums, int32_t start) {
    const __m256i pairs = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
    return _mm256_add_epi32(pairs, _mm256_set1_epi32(start));
  }

  static Vec::F to_f32(Vec::Int v) { return _mm256_cvtepi32_ps(v); }
};

}  // namespace
}  // namespace wideep::math
