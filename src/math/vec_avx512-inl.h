// Vectors of AVX-512 + VNNI for the generic kernels (gemm_fma-inl.h, gemm_int-inl.h).
#pragma once

#include "math/packed_layout.h"
#include "math/simd_avx512-inl.h"

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace wideep::math {
namespace {

struct Vec : Simd {
  using F = Float;
  static constexpr int kRowsMax = 6;
  static constexpr int kOnePassRows = 6;         // rows that keep sums of all columns in registers
  static constexpr int64_t kBlockBytes = 16384;  // of weights in L1, beside the next block and rows

  static F broadcast(const float* p) { return _mm512_set1_ps(*p); }
};

struct F32Weights {
  static constexpr int64_t kValueBytes = 4;

  static void load(const std::byte* line, int c, __m512 (&even)[2], __m512 (&odd)[2]) {
    const auto* w = reinterpret_cast<const float*>(line) + c * 32;
    for (int h = 0; h < 2; ++h) {
      even[h] = Vec::load(w + 16 * h);
      odd[h] = Vec::load(w + kPanelCols + 16 * h);
    }
  }

  static void arrange(__m512&, __m512&) {}

  static constexpr int64_t column(int v) { return v * 16; }
};

struct Bf16Weights {
  static constexpr int64_t kValueBytes = 2;

  static void load(const std::byte* line, int c, __m512 (&even)[2], __m512 (&odd)[2]) {
    for (int h = 0; h < 2; ++h) {
      const __m512i pairs = _mm512_loadu_si512(line + c * 128 + h * 64);
      even[h] = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
      odd[h] = _mm512_castsi512_ps(
          _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U))));
    }
  }

  static void arrange(__m512&, __m512&) {}

  static constexpr int64_t column(int v) { return v * 16; }
};

struct Fp8Weights {
  static constexpr int64_t kValueBytes = 1;

  static constexpr float kFactor = 256;  // what is loaded is that much too small

  // e4m3 codes in the high bytes of 32 words -> f32, through f16.
  static void widen(__m512i high, __m512 (&out)[2]) {
    const __m512i magnitude = _mm512_set1_epi16(0x7F00);
    const __mmask32 nan = _mm512_cmpeq_epi16_mask(_mm512_and_si512(high, magnitude), magnitude);
    const __m512i sign_and_magnitude = _mm512_set1_epi16(static_cast<int16_t>(0xBF80));
    const __m512i number = _mm512_and_si512(_mm512_srai_epi16(high, 1), sign_and_magnitude);
    const __m512i half = _mm512_mask_mov_epi16(number, nan, _mm512_set1_epi16(0x7E00));
    out[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(half));
    out[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(half, 1));
  }

  static void load(const std::byte* line, int c, __m512 (&even)[2], __m512 (&odd)[2]) {
    const __m512i codes = _mm512_loadu_si512(line + c * 64);
    widen(_mm512_slli_epi16(codes, 8), even);
    widen(codes, odd);
  }

  // x: quarters of four columns 0, 4, 1, 5 of what was loaded, y: 2, 6, 3, 7.
  static void arrange(__m512& x, __m512& y) {
    const __m512 low = _mm512_shuffle_f32x4(x, y, 0b10001000);
    y = _mm512_shuffle_f32x4(x, y, 0b11011101);
    x = low;
  }

  static constexpr int64_t column(int v) { return v * 16; }
};

struct IntVec {
  using Weights = __m512i;
  using Quad = __m512i;
  using Nibbles = __m512i;
  static constexpr int kRowsMax = 8;
  static constexpr int kOnePassRows = 6;
  static constexpr int kWeightRegisters = 1;
  static constexpr int kInt4RowsMax = 8;
  static constexpr int kInt4Vecs = 2;
  static constexpr int kQuadBytes = 4;

  static Vec::Int load(const float* p) { return _mm512_loadu_si512(p); }

  static void store(float* p, Vec::Int v) { _mm512_storeu_si512(p, v); }

  static Weights load_weights(const std::byte* p) { return _mm512_loadu_si512(p); }

  static Quad load_quad(const std::byte* quad) { return broadcast(quad); }

  static Vec::Int dot(Vec::Int sums, Weights w, Quad x) { return _mm512_dpbusd_epi32(sums, w, x); }

  static void load_nibbles(const std::byte* p, Nibbles& low, Nibbles& high) {
    const __m512i mask = _mm512_set1_epi8(0xF);
    const __m512i codes = _mm512_loadu_si512(p);
    low = _mm512_and_si512(codes, mask);
    high = _mm512_and_si512(_mm512_srli_epi16(codes, 4), mask);
  }

  static __m512i broadcast(const std::byte* x) {
    return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(x));
  }

  static Vec::Int start_group(int32_t start) { return Vec::set_int(start); }

  static Vec::Int dot_nibbles(Vec::Int sums, Nibbles w, __m512i x) { return dot(sums, w, x); }

  static Vec::Int end_group(Vec::Int sums, int32_t) { return sums; }

  static Vec::F to_f32(Vec::Int v) { return _mm512_cvtepi32_ps(v); }
};

}  // namespace
}  // namespace wideep::math
