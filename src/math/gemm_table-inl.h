// The entries of a table that the generic kernels fill.
#pragma once

#include "math/formats-inl.h"
#include "math/gemm_fma-inl.h"
#include "math/gemm_int-inl.h"
#include "math/kernels.h"

namespace wideep::math {
namespace {

inline void multiply_panel(const PanelProduct& p) {
  switch (p.format) {
    case WeightFormat::kInt8:
      return multiply_int8(p);
    case WeightFormat::kInt4:
      return multiply_int4(p);
    default:
      return multiply_float(p);
  }
}

inline int64_t prepared_bytes(const PanelProduct& p) {
  if (p.format == WeightFormat::kInt4) return p.num_rows * (p.kp / kInt4Group) * 4;
  if (p.format == WeightFormat::kInt8) return kWideQuads ? p.num_rows * wide_bytes(p) : 0;
  return has_prepared_floats(p) ? p.num_rows * p.kp * 4 : 0;
}

inline void prepare_rows(const PanelProduct& p, std::byte* prepared) {
  if (p.format == WeightFormat::kInt4) {
    prepare_int4(p, prepared);
  } else if (p.format == WeightFormat::kInt8) {
    prepare_int8(p, prepared);
  } else if (has_prepared_floats(p)) {
    prepare_floats(p, prepared);
  }
}

inline void fill_gemm(Kernels& table) {
  table.multiply_panel = multiply_panel;
  table.prepared_bytes = prepared_bytes;
  table.prepare_rows = prepare_rows;
  table.encode_row = encode_row;
  table.decode_row = decode_row;
}

}  // namespace
}  // namespace wideep::math
