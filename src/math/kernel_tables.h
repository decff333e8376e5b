// What fills a table (kernels.cc): per level one function for products and formats, and one for
// everything elementwise. A level starts from the table of the level below and replaces what it
// does better.
#pragma once

#include "math/kernels.h"

namespace wideep::math {

// The elementwise kernels of a level: `Elementwise` has a static function for every entry.
template <typename Elementwise>
void fill_elementwise(Kernels& table) {
  table.rms_norm = Elementwise::rms_norm;
  table.silu_mul = Elementwise::silu_mul;
  table.axpy = Elementwise::axpy;
  table.add = Elementwise::add;
  table.add_weighted_rows = Elementwise::add_weighted_rows;
  table.stream = Elementwise::stream;
  table.stream_fence = Elementwise::stream_fence;
  table.to_bf16 = Elementwise::to_bf16;
  table.exp = Elementwise::exp;
  table.sigmoid = Elementwise::sigmoid;
  table.softmax = Elementwise::softmax;
  table.rope_interleaved = Elementwise::rope_interleaved;
  table.rope_half = Elementwise::rope_half;
  table.argmax = Elementwise::argmax;
  table.log_sum_exp = Elementwise::log_sum_exp;
}

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
