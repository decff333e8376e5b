// Where things lie in a packed panel; for the packer and the kernels only (docs/formats/weights.md
// has the byte tables). kp is k padded to a multiple of 64; a panel has 64 output columns.
//
//   kF32   f32  [kp][64]
//   kBf16  bf16 [kp/2][64][2]
//   kFp8   u8   [kp/2][2 x 64 bytes] e4m3 codes: a line holds 32 columns and two inputs in the
//          order that byte unpacks leave sorted: [4 i][2 h][4 j][2 inputs] is column 16h + 4i + j
//          (fp8_code_offset). Behind the codes f32 [ceil(kp/128)][2]: the scale
//          of columns 0-31 and of columns 32-63 (gate and up in a gate_up panel, else equal),
//          padded to 64 bytes
//   kInt8  u8   [kp/4][64][4] code + 128 (so that a weight is the unsigned operand of VNNI and the
//          correction, -128 x the row's code sum, is one number per row), then f32 [64] scales
//   kInt4  per group of 32 inputs: u8 [4][64][4], then bf16 [64] scales. Byte [j][c][i] holds
//          code + 8 of input 8j + i (low nibble) and of input 8j + 4 + i (high nibble)
#pragma once

#include "base/check.h"
#include "base/rounding.h"
#include "math/formats.h"

#include <cstdint>

namespace wideep::math {

inline constexpr int64_t kPanelCols = 64;
inline constexpr int64_t kInt4GroupCodes = kInt4Group / 2 * kPanelCols;
inline constexpr int64_t kInt4GroupBytes = kInt4GroupCodes + kPanelCols * 2;

constexpr int64_t padded_k(int64_t k) {
  return round_up(k, 64);
}

// Of the code of input k, column c, in a panel.
constexpr int64_t fp8_code_offset(int64_t k, int64_t c) {
  const int64_t lane = c % 16 / 4;
  const int64_t half = c % 32 / 16;
  return k / 2 * 128 + c / 32 * 64 + lane * 16 + half * 8 + c % 4 * 2 + k % 2;
}

constexpr int64_t fp8_scale_bytes(int64_t kp) {
  return round_up(divide_up(kp, kScaleBlock) * 2 * 4, 64);
}

// Bytes of a panel's codes or values, in front of what scales come behind them.
constexpr int64_t panel_value_bytes(WeightFormat format, int64_t kp) {
  switch (format) {
    case WeightFormat::kF32:
      return kp * kPanelCols * 4;
    case WeightFormat::kBf16:
      return kp * kPanelCols * 2;
    case WeightFormat::kFp8:
    case WeightFormat::kInt8:
      return kp * kPanelCols;
    case WeightFormat::kInt4:
      return kp / kInt4Group * kInt4GroupBytes;
  }
  return 0;
}

}  // namespace wideep::math
