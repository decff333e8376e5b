#include "peaks.h"

#include <immintrin.h>

namespace wideep::bench {
namespace {

constexpr int kSteps = 20000;
constexpr int kSums = 12;

double fma_ymm() {
  __m256 sums[kSums] = {};
  __m256 a = _mm256_set1_ps(0.5F);
  for (int step = 0; step < kSteps; ++step) {
    asm volatile("" : "+x"(a));
#pragma unroll
    for (__m256& sum : sums)
      sum = _mm256_fmadd_ps(a, a, sum);
  }
  for (__m256& sum : sums)
    asm volatile("" ::"x"(sum));
  return double{kSteps} * kSums * 8 * 2;
}

// What the exact int8 kernel does: two multiply-adds of words and two adds per 32 products.
double madd_ymm() {
  __m256i sums[kSums] = {};
  __m256i a = _mm256_set1_epi32(3);
  for (int step = 0; step < kSteps; ++step) {
    asm volatile("" : "+x"(a));
#pragma unroll
    for (__m256i& sum : sums)
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, a));
  }
  for (__m256i& sum : sums)
    asm volatile("" ::"x"(sum));
  return double{kSteps} * kSums * 16 * 2;
}

}  // namespace

Peaks avx2_peaks() {
  return {.f32 = fma_ymm, .bf16 = fma_ymm, .int8 = madd_ymm};
}

}  // namespace wideep::bench
