#include "math/elementwise-inl.h"
#include "math/kernel_tables.h"
#include "math/simd_avx512-inl.h"

namespace wideep::math::avx512 {

void add_elementwise(Kernels& table) {
  Elementwise<Simd>::fill(table);
}

}  // namespace wideep::math::avx512
