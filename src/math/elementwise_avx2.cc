#include "math/elementwise-inl.h"
#include "math/kernel_tables.h"
#include "math/simd_avx2-inl.h"

namespace wideep::math::avx2 {

void add_elementwise(Kernels& table) {
  fill_elementwise<Elementwise<Simd>>(table);
}

}  // namespace wideep::math::avx2
