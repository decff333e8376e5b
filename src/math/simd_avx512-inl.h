// Sixteen floats at a time: what the elementwise and attention kernels are written in, for AVX-512.
// In an unnamed namespace, so that no wide instruction ends up in a symbol that others link to.
#pragma once

#include "math/simd-inl.h"

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace wideep::math {
namespace {

struct Simd : SimdArithmetic<__m512> {
  using Int = __m512i;
  using Mask = __mmask16;
  static constexpr int kLanes = 16;
  static constexpr int kRegisters = 32;

  static Float set(float x) { return _mm512_set1_ps(x); }

  static Float load(const float* p) { return _mm512_loadu_ps(p); }

  static void store(float* p, Float v) { _mm512_storeu_ps(p, v); }

  // A cache line, past the caches; both ends aligned.
  static void stream_line(const std::byte* from, std::byte* to) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_load_si512(from));
  }

  static void stream_fence() { _mm_sfence(); }

  // The first n lanes; the others are zero, or left alone.
  static Mask first(int64_t n) { return static_cast<Mask>((1U << n) - 1U); }

  static Float load_first(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }

  static void store_first(float* p, Float v, int64_t n) { _mm512_mask_storeu_ps(p, first(n), v); }

  static Float load_bf16(const uint16_t* p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }

  static Float load_bf16_first(const uint16_t* p, int64_t n) {
    return widen(_mm256_maskz_loadu_epi16(first(n), p));
  }

  // Rounds to nearest even; NaN stays NaN.
  static void store_bf16(uint16_t* p, Float v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(v));
  }

  static void store_bf16_first(uint16_t* p, Float v, int64_t n) {
    _mm256_mask_storeu_epi16(p, first(n), narrow(v));
  }

  static Float round_to_bf16(Float v) { return widen(narrow(v)); }

  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }

  // c - a * b
  static Float fnma(Float a, Float b, Float c) { return _mm512_fnmadd_ps(a, b, c); }

  // Where either is NaN: b.
  static Float max(Float a, Float b) { return _mm512_max_ps(a, b); }

  static Float min(Float a, Float b) { return _mm512_min_ps(a, b); }

  static Float round(Float a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }

  // a * 2^n for an integer n in [-150, 128]; rounds once.
  static Float scale(Float a, Float n) { return _mm512_scalef_ps(a, n); }

  // 2^n * a for a in [1/2, 2] and n = magic - 1.5 * 2^23 an integer in [-126, 0].
  static Float shift_exponent(Float a, Float magic) {
    const Int n = _mm512_slli_epi32(_mm512_castps_si512(magic), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), n));
  }

  static Mask less(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }

  static Mask less(Int a, Int b) { return _mm512_cmplt_epi32_mask(a, b); }

  static Float select(Mask m, Float yes, Float no) { return _mm512_mask_blend_ps(m, no, yes); }

  static Int select(Mask m, Int yes, Int no) { return _mm512_mask_blend_epi32(m, no, yes); }

  static Int set_int(int32_t x) { return _mm512_set1_epi32(x); }

  static Int load_int(const int32_t* p) { return _mm512_loadu_si512(p); }

  static void store_int(int32_t* p, Int v) { _mm512_storeu_si512(p, v); }

  static Int lane_index() {
    return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  }

  using SimdArithmetic::add;

  static Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }

  // (a0 b0 a1 b1 …) with pair j rotated by (cosines[j], sines[j]).
  static Float rotate_pairs(Float x, const float* cosines, const float* sines, int64_t num_pairs) {
    const __mmask8 pairs = static_cast<__mmask8>((1U << num_pairs) - 1U);
    const __m512 c = spread(_mm256_maskz_loadu_ps(pairs, cosines));
    const __m512 s = spread(_mm256_maskz_loadu_ps(pairs, sines));
    return _mm512_fmaddsub_ps(x, c, _mm512_mul_ps(_mm512_permute_ps(x, 0b10110001), s));
  }

 private:
  static Float spread(__m256 v) {
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(v));
  }

  static Float widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }

  static __m256i narrow(Float v) {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(
        _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16));
  }
};

}  // namespace
}  // namespace wideep::math
