#include "burst-inl.h"
#include "peaks.h"

#include <immintrin.h>

namespace wideep::bench {
namespace {

constexpr int kSteps = 20000;
constexpr int kSums = 12;

double fma_ymm() {
  return burst<__m256, kSteps, kSums>(
      _mm256_set1_ps(0.5F), 8 * 2, [](__m256 sum, __m256 a) { return _mm256_fmadd_ps(a, a, sum); });
}

// What the exact int8 kernel does: two multiply-adds of words and two adds per 32 products.
double madd_ymm() {
  return burst<__m256i, kSteps, kSums>(_mm256_set1_epi32(3), 16 * 2, [](__m256i sum, __m256i a) {
    asm volatile("" : "+v"(a));  // or one product would serve all sums
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, a));
  });
}

void read_ymm(std::span<const std::byte> memory) {
  __m256i sums[8] = {};
  for (size_t i = 0; i + 256 <= memory.size(); i += 256) {
#pragma unroll
    for (size_t j = 0; j < 8; ++j) {
      const auto* from = reinterpret_cast<const __m256i*>(memory.data() + i + 32 * j);
      sums[j] = _mm256_add_epi64(sums[j], _mm256_loadu_si256(from));
    }
  }
  for (__m256i& sum : sums)
    asm volatile("" ::"x"(sum));
}

}  // namespace

Peaks avx2_peaks() {
  return {.f32 = fma_ymm, .bf16 = fma_ymm, .int8 = madd_ymm, .read = read_ymm};
}

}  // namespace wideep::bench
