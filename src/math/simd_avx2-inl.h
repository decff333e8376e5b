// Eight floats at a time: what the elementwise and attention kernels are written in, for AVX2.
// In an unnamed namespace, so that no wide instruction ends up in a symbol that others link to.
#pragma once

#include "math/simd-inl.h"

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace wideep::math {
namespace {

struct Simd : SimdArithmetic<__m256> {
  using Int = __m256i;
  using Mask = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kRegisters = 16;

  static Float set(float x) { return _mm256_set1_ps(x); }

  static Float load(const float* p) { return _mm256_loadu_ps(p); }

  static void store(float* p, Float v) { _mm256_storeu_ps(p, v); }

  // A cache line, past the caches; both ends aligned.
  static void stream_line(const std::byte* from, std::byte* to) {
    const auto* source = reinterpret_cast<const __m256i*>(from);
    auto* target = reinterpret_cast<__m256i*>(to);
    const __m256i low = _mm256_load_si256(source);
    const __m256i high = _mm256_load_si256(source + 1);
    _mm256_stream_si256(target, low);
    _mm256_stream_si256(target + 1, high);
  }

  static void stream_fence() { _mm_sfence(); }

  // The first n lanes; the others are zero, or left alone.
  static Float load_first(const float* p, int64_t n) { return _mm256_maskload_ps(p, first(n)); }

  static void store_first(float* p, Float v, int64_t n) { _mm256_maskstore_ps(p, first(n), v); }

  static Float load_bf16(const uint16_t* p) {
    return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }

  static Float load_bf16_first(const uint16_t* p, int64_t n) {
    alignas(16) uint16_t values[8] = {};
    for (int64_t i = 0; i < n; ++i)
      values[i] = p[i];
    return load_bf16(values);
  }

  // Rounds to nearest even; NaN stays NaN.
  static void store_bf16(uint16_t* p, Float v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(v));
  }

  static void store_bf16_first(uint16_t* p, Float v, int64_t n) {
    alignas(16) uint16_t values[8];
    store_bf16(values, v);
    for (int64_t i = 0; i < n; ++i)
      p[i] = values[i];
  }

  static Float round_to_bf16(Float v) { return widen(narrow(v)); }

  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }

  // c - a * b
  static Float fnma(Float a, Float b, Float c) { return _mm256_fnmadd_ps(a, b, c); }

  // Where either is NaN: b.
  static Float max(Float a, Float b) { return _mm256_max_ps(a, b); }

  static Float min(Float a, Float b) { return _mm256_min_ps(a, b); }

  static Float round(Float a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }

  // a * 2^n for an integer n in [-150, 128]; rounds once.
  static Float scale(Float a, Float n) {
    // In two factors: each is a normal number, and only the last product may be denormal.
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    return mul(mul(a, power(half)), power(_mm256_sub_epi32(whole, half)));
  }

  // 2^n * a for a in [1/2, 2] and n = magic - 1.5 * 2^23 an integer in [-126, 0].
  static Float shift_exponent(Float a, Float magic) {
    const Int n = _mm256_slli_epi32(_mm256_castps_si256(magic), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), n));
  }

  static Mask less(Float a, Float b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }

  static Mask less(Int a, Int b) { return _mm256_castsi256_ps(_mm256_cmpgt_epi32(b, a)); }

  static Float select(Mask m, Float yes, Float no) { return _mm256_blendv_ps(no, yes, m); }

  static Int select(Mask m, Int yes, Int no) {
    return _mm256_castps_si256(
        _mm256_blendv_ps(_mm256_castsi256_ps(no), _mm256_castsi256_ps(yes), m));
  }

  static Int set_int(int32_t x) { return _mm256_set1_epi32(x); }

  static Int load_int(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }

  static void store_int(int32_t* p, Int v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
  }

  static Int lane_index() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }

  using SimdArithmetic::add;

  static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }

  // (a0 b0 a1 b1 …) with pair j rotated by (cosines[j], sines[j]).
  static Float rotate_pairs(Float x, const float* cosines, const float* sines, int64_t num_pairs) {
    const __m256 c = spread(load_first(cosines, num_pairs));
    const __m256 s = spread(load_first(sines, num_pairs));
    return _mm256_fmaddsub_ps(x, c, _mm256_mul_ps(_mm256_permute_ps(x, 0b10110001), s));
  }

 private:
  static __m256i first(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane_index());
  }

  static Float spread(__m256 v) {
    return _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
  }

  static Float power(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }

  static Float widen(__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }

  static __m128i narrow(Float v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i words = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  }
};

}  // namespace
}  // namespace wideep::math
