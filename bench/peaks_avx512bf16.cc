#include "peaks.h"

#include <immintrin.h>

namespace wideep::bench {
namespace {

constexpr int kSteps = 10000;
constexpr int kSums = 24;

double dpbf16_zmm() {
  __m512 sums[kSums] = {};
  __m512i a = _mm512_set1_epi32(0x3F003F00);
  for (int step = 0; step < kSteps; ++step) {
    asm volatile("" : "+v"(a));
    const auto pair = reinterpret_cast<__m512bh>(a);
#pragma unroll
    for (__m512& sum : sums)
      sum = _mm512_dpbf16_ps(sum, pair, pair);
  }
  for (__m512& sum : sums)
    asm volatile("" ::"v"(sum));
  return double{kSteps} * kSums * 32 * 2;
}

}  // namespace

Peaks avx512bf16_peaks() {
  return {.bf16 = dpbf16_zmm};
}

}  // namespace wideep::bench
