// What fills a table (kernels.cc): per level one function for products and formats, and one for
// everything elementwise. A level starts from the table of the level below and replaces what it
// does better.
#pragma once

#include "math/kernels.h"

namespace wideep::math {

namespace scalar {
void add_gemm(Kernels& table);
void add_elementwise(Kernels& table);
}  // namespace scalar

namespace avx2 {
void add_gemm(Kernels& table);
void add_elementwise(Kernels& table);
}  // namespace avx2

namespace avx512 {
void add_gemm(Kernels& table);
void add_elementwise(Kernels& table);
}  // namespace avx512

namespace avx512bf16 {
void add_gemm(Kernels& table);
}  // namespace avx512bf16

namespace amx {
void add_gemm(Kernels& table);
}  // namespace amx

}  // namespace wideep::math
