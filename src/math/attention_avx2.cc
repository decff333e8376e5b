#include "math/attention_f32-inl.h"
#include "math/simd_avx2-inl.h"

namespace wideep::math::avx2 {

const AttentionKernels& attention_kernels() {
  return F32Attention<Simd>::kKernels;
}

}  // namespace wideep::math::avx2
