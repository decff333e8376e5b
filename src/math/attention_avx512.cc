#include "math/attention_f32-inl.h"
#include "math/simd_avx512-inl.h"

namespace wideep::math::avx512 {

const AttentionKernels& attention_kernels() {
  return F32Attention<Simd>::kKernels;
}

}  // namespace wideep::math::avx512
