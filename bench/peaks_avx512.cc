#include "burst-inl.h"
#include "peaks.h"

#include <immintrin.h>

namespace wideep::bench {
namespace {

constexpr int kSteps = 10000;
constexpr int kSums = 24;

double fma_zmm() {
  return burst<__m512, kSteps, kSums>(_mm512_set1_ps(0.5F), 16 * 2, [](__m512 sum, __m512 a) {
    return _mm512_fmadd_ps(a, a, sum);
  });
}

double dpbusd_zmm() {
  return burst<__m512i, kSteps, kSums>(_mm512_set1_epi32(3), 64 * 2, [](__m512i sum, __m512i a) {
    return _mm512_dpbusd_epi32(sum, a, a);
  });
}

void read_zmm(std::span<const std::byte> memory) {
  __m512i sums[4] = {};
  for (size_t i = 0; i + 256 <= memory.size(); i += 256) {
#pragma unroll
    for (size_t j = 0; j < 4; ++j)
      sums[j] = _mm512_add_epi64(sums[j], _mm512_loadu_si512(memory.data() + i + 64 * j));
  }
  for (__m512i& sum : sums)
    asm volatile("" ::"v"(sum));
}

}  // namespace

Peaks avx512_peaks() {
  return {.f32 = fma_zmm, .bf16 = fma_zmm, .int8 = dpbusd_zmm, .read = read_zmm};
}

}  // namespace wideep::bench
