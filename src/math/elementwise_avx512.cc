#include "math/elementwise-inl.h"
#include "math/kernel_tables.h"
#include "math/simd_avx512-inl.h"

namespace wideep::math::avx512 {

void add_elementwise(Kernels& table) {
  fill_elementwise<Elementwise<Simd>>(table);
}

}  // namespace wideep::math::avx512
