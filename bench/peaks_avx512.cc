#include "peaks.h"

#include <immintrin.h>

namespace wideep::bench {
namespace {

constexpr int kSteps = 10000;
constexpr int kSums = 24;

double fma_zmm() {
  __m512 sums[kSums] = {};
  __m512 a = _mm512_set1_ps(0.5F);
  for (int step = 0; step < kSteps; ++step) {
    asm volatile("" : "+v"(a));
#pragma unroll
    for (__m512& sum : sums)
      sum = _mm512_fmadd_ps(a, a, sum);
  }
  for (__m512& sum : sums)
    asm volatile("" ::"v"(sum));
  return double{kSteps} * kSums * 16 * 2;
}

double dpbusd_zmm() {
  __m512i sums[kSums] = {};
  __m512i a = _mm512_set1_epi32(3);
  for (int step = 0; step < kSteps; ++step) {
    asm volatile("" : "+v"(a));
#pragma unroll
    for (__m512i& sum : sums)
      sum = _mm512_dpbusd_epi32(sum, a, a);
  }
  for (__m512i& sum : sums)
    asm volatile("" ::"v"(sum));
  return double{kSteps} * kSums * 64 * 2;
}

}  // namespace

Peaks avx512_peaks() {
  return {.f32 = fma_zmm, .bf16 = fma_zmm, .int8 = dpbusd_zmm};
}

}  // namespace wideep::bench
