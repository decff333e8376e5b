// Number formats: of weights in memory, and of rows (activations) between kernels and on the wire.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace wideep::math {

// Side of an fp8 weight block; columns of an fp8 row scale.
inline constexpr int64_t kScaleBlock = 128;
inline constexpr int64_t kInt4Group = 32;
inline constexpr float kFp8Max = 448.0F;

// How a weight matrix is stored.
enum class WeightFormat {
  kF32,
  kBf16,
  kFp8,   // e4m3 codes with one f32 scale per 128 x 128 block (DeepSeek's own)
  kInt8,  // signed, one f32 scale per output channel
  kInt4,  // signed nibbles, one scale per output channel and 32 inputs
};
std::string_view name(WeightFormat format);  // "f32", "bf16", "fp8", "int8", "int4"
std::optional<WeightFormat> parse_weight_format(std::string_view name);

// How a row of activations is stored. A row's bytes start at a 64-byte boundary; its columns are
// padded with zeros to a multiple of 64 (so kernels never look at a tail); it carries its own
// scales, so that a pointer is all that a kernel needs:
//   kF32   cols x 4
//   kBf16  cols x 2, round to nearest even
//   kInt8  cols x 1, then f32 scale and i32 sum of the codes: x = q * scale, scale = amax / 127
//   kFp8   cols x 1, then one f32 scale per 128 columns: scale = max(amax, 1e-4) / 448
// A NaN or infinity in a row gives a scale that is not finite: it shows in every product.
enum class RowFormat { kF32, kBf16, kInt8, kFp8 };
std::string_view name(RowFormat format);
std::optional<RowFormat> parse_row_format(std::string_view name);

// Bytes of one row, a multiple of 64.
int64_t row_bytes(RowFormat format, int64_t cols);
// Byte offset of the scale or scales; formats without scales return row_bytes.
int64_t row_scale_offset(RowFormat format, int64_t cols);

// Scalar conversions. All round to nearest even; NaN stays NaN.
inline float bf16_to_f32(uint16_t bits) {
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

uint16_t f32_to_bf16(float value);
float f16_to_f32(uint16_t bits);
float fp8_to_f32(uint8_t code);   // e4m3fn: bias 7, largest 448, 0x7F and 0xFF are NaN
uint8_t f32_to_fp8(float value);  // saturates to 448

// One row from f32 into `format` and back; `out` has row_bytes(format, cols). These scalar twins
// judge the fast ones in Kernels. Encoding depends on the row alone.
void reference_encode_row(RowFormat format, std::span<const float> row, std::byte* out);
void reference_decode_row(RowFormat format, const std::byte* row, std::span<float> out);

}  // namespace wideep::math
