// AVX-512 F/BW/DQ/VL + VNNI. bf16 rows are multiplied as f32, int8 by vpdpbusd.
#include "math/kernel_tables.h"
#include "math/vec_avx512-inl.h"

// The generic kernels on those vectors.
#include "math/gemm_table-inl.h"

namespace wideep::math::avx512 {

void add_gemm(Kernels& table) {
  fill_gemm(table);
}

}  // namespace wideep::math::avx512
