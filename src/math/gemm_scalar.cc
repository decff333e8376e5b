// The inner kernels in plain C++: same layout and same sums per K block as the fast ones, no
// tricks.
#include "base/check.h"
#include "math/kernel_tables.h"
#include "math/packed_layout.h"
#include "math/panel_product.h"
#include "math/scalar_values.h"

#include <algorithm>
#include <array>

namespace wideep::math::scalar {
namespace {

using Sums = std::array<float, kPanelCols>;

float row_value(const PanelProduct& p, const std::byte* row, int64_t k) {
  return p.row_format == RowFormat::kF32 ? load<float>(row, k)
                                         : bf16_to_f32(load<uint16_t>(row, k));
}

float weight(const PanelProduct& p, int64_t k, int64_t c) {
  const int64_t pair_index = (k / 2 * kPanelCols + c) * 2 + k % 2;
  switch (p.format) {
    case WeightFormat::kF32:
      return load<float>(p.panel, k * kPanelCols + c);
    case WeightFormat::kBf16:
      return bf16_to_f32(load<uint16_t>(p.panel, pair_index));
    default:
      return fp8_to_f32(load<uint8_t>(p.panel, fp8_code_offset(k, c)));
  }
}

// f32 and bf16 weights are one block of all k; fp8 weights a block of 128 per scale.
Sums multiply_float(const PanelProduct& p, const std::byte* row) {
  const bool scaled = p.format == WeightFormat::kFp8;
  const int64_t block = scaled ? kScaleBlock : p.kp;
  Sums total{};
  for (int64_t begin = 0; begin < p.kp; begin += block) {
    Sums sums{};
    for (int64_t k = begin; k < std::min(begin + block, p.kp); ++k) {
      const float x = row_value(p, row, k);
      for (int64_t c = 0; c < kPanelCols; ++c)
        sums[static_cast<size_t>(c)] += x * weight(p, k, c);
    }
    if (!scaled) return sums;
    for (int64_t c = 0; c < kPanelCols; ++c) {
      const float scale = load<float>(p.scales, begin / block * 2 + c / (kPanelCols / 2));
      total[static_cast<size_t>(c)] += sums[static_cast<size_t>(c)] * scale;
    }
  }
  return total;
}

Sums multiply_int8(const PanelProduct& p, const std::byte* row) {
  const auto row_scale = load<float>(row + p.kp);
  Sums out{};
  for (int64_t c = 0; c < kPanelCols; ++c) {
    int32_t sum = 0;
    for (int64_t k = 0; k < p.kp; ++k) {
      const int code = load<uint8_t>(p.panel, (k / 4 * kPanelCols + c) * 4 + k % 4) - 128;
      sum += code * load<int8_t>(row, k);
    }
    out[static_cast<size_t>(c)] = static_cast<float>(sum) * load<float>(p.scales, c) * row_scale;
  }
  return out;
}

int32_t int4_group_sum(const std::byte* group, const std::byte* row, int64_t c) {
  int32_t sum = 0;
  for (int64_t k = 0; k < kInt4Group; ++k) {
    const auto byte = load<uint8_t>(group, (k / 8 * kPanelCols + c) * 4 + k % 4);
    sum += (((byte >> (k % 8 / 4 * 4)) & 0xF) - 8) * load<int8_t>(row, k);
  }
  return sum;
}

Sums multiply_int4(const PanelProduct& p, const std::byte* row) {
  const auto row_scale = load<float>(row + p.kp);
  Sums out{};
  for (int64_t c = 0; c < kPanelCols; ++c) {
    float sum = 0.0F;
    for (int64_t g = 0; g < p.kp / kInt4Group; ++g) {
      const std::byte* group = p.panel + g * kInt4GroupBytes;
      const float scale = bf16_to_f32(load<uint16_t>(group + kInt4GroupCodes, c));
      sum += static_cast<float>(int4_group_sum(group, row + g * kInt4Group, c)) * scale;
    }
    out[static_cast<size_t>(c)] = sum * row_scale;
  }
  return out;
}

Sums multiply_row(const PanelProduct& p, const std::byte* row) {
  switch (p.format) {
    case WeightFormat::kInt8:
      return multiply_int8(p, row);
    case WeightFormat::kInt4:
      return multiply_int4(p, row);
    default:
      return multiply_float(p, row);
  }
}

void multiply_panel(const PanelProduct& p) {
  for (int64_t r = 0; r < p.num_rows; ++r) {
    const Sums sums = multiply_row(p, p.rows[r]);
    std::copy(sums.begin(), sums.end(), p.out + r * kPanelCols);
  }
}

int64_t prepared_bytes(const PanelProduct&) {
  return 0;
}

void prepare_rows(const PanelProduct&, std::byte*) {}

void encode_row(RowFormat format, const float* row, int64_t cols, std::byte* out) {
  reference_encode_row(format, {row, static_cast<size_t>(cols)}, out);
}

void decode_row(RowFormat format, const std::byte* row, int64_t cols, float* out) {
  reference_decode_row(format, row, {out, static_cast<size_t>(cols)});
}

}  // namespace

void add_gemm(Kernels& table) {
  table.multiply_panel = multiply_panel;
  table.prepared_bytes = prepared_bytes;
  table.prepare_rows = prepare_rows;
  table.encode_row = encode_row;
  table.decode_row = decode_row;
}

}  // namespace wideep::math::scalar
