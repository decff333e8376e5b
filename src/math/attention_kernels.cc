#include "math/attention_kernels.h"

#include "base/check.h"

namespace wideep::math {
namespace scalar {
const AttentionKernels& attention_kernels();
}  // namespace scalar

namespace avx2 {
const AttentionKernels& attention_kernels();
}  // namespace avx2

namespace avx512 {
const AttentionKernels& attention_kernels();
}  // namespace avx512

const AttentionKernels& attention_kernels(Isa isa) {
  WD_CHECK(is_supported(isa));
  switch (isa) {
    case Isa::kScalar:
      return scalar::attention_kernels();
    case Isa::kAvx2:
      return avx2::attention_kernels();
    case Isa::kAvx512:
    case Isa::kAvx512Bf16:
    case Isa::kAmx:
      return avx512::attention_kernels();
  }
  WD_CHECK(false);
}

}  // namespace wideep::math
