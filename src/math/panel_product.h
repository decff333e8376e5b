// One call of an inner kernel: rows x one packed panel -> 64 columns of f32. Between gemm.cc and
// the kernels of each ISA level; everybody else calls gemm().
#pragma once

#include "math/formats.h"

#include <cstddef>
#include <cstdint>

namespace wideep::math {

struct PanelProduct {
  WeightFormat format = WeightFormat::kF32;
  RowFormat row_format = RowFormat::kF32;
  int64_t kp = 0;                          // inputs, padded to a multiple of 64
  const std::byte* panel = nullptr;        // packed_layout.h
  const std::byte* const* rows = nullptr;  // formats.h
  int64_t num_rows = 0;
  float* out = nullptr;  // row r at out + r * out_stride; all 64 columns are written
  int64_t out_stride = 0;
};

}  // namespace wideep::math
