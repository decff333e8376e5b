// AVX2 + FMA + F16C. bf16 rows are multiplied as f32, int8 by exact 16-bit multiply-adds.
#include "math/kernel_tables.h"
#include "math/vec_avx2-inl.h"

// The generic kernels on those vectors.
#include "math/gemm_table-inl.h"

namespace wideep::math::avx2 {

void add_gemm(Kernels& table) {
  fill_gemm(table);
}

}  // namespace wideep::math::avx2
