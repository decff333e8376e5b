#include "math/elementwise-inl.h"
#include "math/kernel_tables.h"
#include "math/simd_avx2-inl.h"

namespace wideep::math::avx2 {

void add_elementwise(Kernels& table) {
  Elementwise<Simd>::fill(table);
}

}  // namespace wideep::math::avx2
