#include "math/attention_kernels.h"

#include "base/check.h"

namespace wideep::math {
namespace scalar {
const AttentionKernels& attention_kernels();
}  // namespace scalar

const AttentionKernels& attention_kernels(Isa isa) {
  WD_CHECK(is_supported(isa));
  return scalar::attention_kernels();
}

}  // namespace wideep::math
