#include "peaks.h"

namespace wideep::bench {

Peaks peaks(math::Isa isa) {
  switch (isa) {
    case math::Isa::kScalar:
    case math::Isa::kAvx2:
      return avx2_peaks();
    case math::Isa::kAvx512:
      return avx512_peaks();
    case math::Isa::kAvx512Bf16: {
      Peaks all = avx512_peaks();
      all.bf16 = avx512bf16_peaks().bf16;
      return all;
    }
    case math::Isa::kAmx: {
      Peaks all = amx_peaks();
      all.f32 = avx512_peaks().f32;
      all.read = avx512_peaks().read;
      return all;
    }
  }
  return {};
}

}  // namespace wideep::bench
