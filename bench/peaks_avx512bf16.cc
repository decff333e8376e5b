#include "burst-inl.h"
#include "peaks.h"

#include <immintrin.h>

namespace wideep::bench {
namespace {

constexpr int kSteps = 10000;
constexpr int kSums = 24;

double dpbf16_zmm() {
  return burst<__m512, kSteps, kSums>(_mm512_set1_epi32(0x3F003F00), 32 * 2,
                                      [](__m512 sum, __m512i a) {
                                        const auto pair = reinterpret_cast<__m512bh>(a);
                                        return _mm512_dpbf16_ps(sum, pair, pair);
                                      });
}

}  // namespace

Peaks avx512bf16_peaks() {
  return {.bf16 = dpbf16_zmm};
}

}  // namespace wideep::bench
