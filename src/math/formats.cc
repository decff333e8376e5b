#include "math/formats.h"

#include "base/check.h"
#include "base/rounding.h"
#include "math/packed_layout.h"
#include "math/scalar_values.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <iterator>

namespace wideep::math {
namespace {

constexpr std::array<std::string_view, 5> kWeightNames = {"f32", "bf16", "fp8", "int8", "int4"};
constexpr std::array<std::string_view, 4> kRowNames = {"f32", "bf16", "int8", "fp8"};

template <typename Format>
std::optional<Format> parse(std::span<const std::string_view> names, std::string_view name) {
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) return std::nullopt;
  return static_cast<Format>(found - names.begin());
}

// The largest |x| by its bits, so that a NaN anywhere wins and shows in the scale.
float abs_max(std::span<const float> x, float least) {
  uint32_t most = std::bit_cast<uint32_t>(least);
  for (const float value : x)
    most = std::max(most, std::bit_cast<uint32_t>(value) & 0x7FFFFFFFU);
  return std::bit_cast<float>(most);
}

void encode_int8(std::span<const float> row, std::byte* out) {
  const float amax = abs_max(row, 0.0F);
  const float inverse = amax == 0.0F ? 0.0F : 127.0F / amax;
  const float scale = amax / 127.0F;
  int32_t sum = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    const int32_t q = std::clamp(round_to_int(row[i] * inverse), -127, 127);
    out[i] = static_cast<std::byte>(static_cast<int8_t>(q));
    sum += q;
  }
  const int64_t offset = row_scale_offset(RowFormat::kInt8, static_cast<int64_t>(row.size()));
  std::memcpy(out + offset, &scale, sizeof scale);
  std::memcpy(out + offset + 4, &sum, sizeof sum);
}

void encode_fp8(std::span<const float> row, std::byte* out) {
  const int64_t offset = row_scale_offset(RowFormat::kFp8, static_cast<int64_t>(row.size()));
  for (size_t begin = 0; begin < row.size(); begin += kScaleBlock) {
    const auto block = row.subspan(begin, std::min<size_t>(kScaleBlock, row.size() - begin));
    const float scale = abs_max(block, 1e-4F) / kFp8Max;
    for (size_t i = 0; i < block.size(); ++i)
      out[begin + i] = static_cast<std::byte>(f32_to_fp8(block[i] / scale));
    std::memcpy(out + offset + begin / kScaleBlock * sizeof scale, &scale, sizeof scale);
  }
}

}  // namespace

std::string_view name(WeightFormat format) {
  return kWeightNames[static_cast<size_t>(format)];
}

std::optional<WeightFormat> parse_weight_format(std::string_view name) {
  return parse<WeightFormat>(kWeightNames, name);
}

std::string_view name(RowFormat format) {
  return kRowNames[static_cast<size_t>(format)];
}

std::optional<RowFormat> parse_row_format(std::string_view name) {
  return parse<RowFormat>(kRowNames, name);
}

int64_t row_scale_offset(RowFormat format, int64_t cols) {
  switch (format) {
    case RowFormat::kF32:
      return padded_k(cols) * 4;
    case RowFormat::kBf16:
      return padded_k(cols) * 2;
    case RowFormat::kInt8:
    case RowFormat::kFp8:
      return padded_k(cols);
  }
  WD_CHECK(false);
}

int64_t row_bytes(RowFormat format, int64_t cols) {
  const int64_t values = row_scale_offset(format, cols);
  switch (format) {
    case RowFormat::kF32:
    case RowFormat::kBf16:
      return values;
    case RowFormat::kInt8:
      return values + 64;
    case RowFormat::kFp8:
      return values + round_up(divide_up(cols, kScaleBlock) * 4, 64);
  }
  WD_CHECK(false);
}

uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<uint16_t>((bits >> 16) | 0x40U);
  return static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

float f16_to_f32(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000U} << 16;
  const uint32_t magnitude = bits & 0x7FFFU;
  if (magnitude >= 0x7C00U)  // infinity and NaN
    return std::bit_cast<float>(sign | 0x7F800000U | ((magnitude & 0x3FFU) << 13));
  // As the mantissa of a float 2^112 times too small; the product is exact, denormals included.
  const float small = std::bit_cast<float>(magnitude << 13);
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(small * 0x1p112F));
}

float fp8_to_f32(uint8_t code) {
  const uint32_t sign = uint32_t{code & 0x80U} << 24;
  const uint32_t magnitude = code & 0x7FU;
  if (magnitude == 0x7FU) return std::bit_cast<float>(sign | 0x7FC00000U);
  const float small = std::bit_cast<float>(magnitude << 20);
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(small * 0x1p120F));
}

uint8_t f32_to_fp8(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>((bits >> 24) & 0x80U);
  uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return sign | 0x7FU;
  const float absolute = std::min(std::bit_cast<float>(magnitude), kFp8Max);
  if (absolute < 0x1p-6F)  // denormal: a multiple of 2^-9
    return static_cast<uint8_t>(sign | round_to_int(absolute * 0x1p9F));
  magnitude = std::bit_cast<uint32_t>(absolute);
  magnitude += 0x7FFFFU + ((magnitude >> 20) & 1U);
  return static_cast<uint8_t>(sign | ((magnitude >> 20) - (120U << 3)));
}

void reference_encode_row(RowFormat format, std::span<const float> row, std::byte* out) {
  std::memset(out, 0, static_cast<size_t>(row_bytes(format, static_cast<int64_t>(row.size()))));
  switch (format) {
    case RowFormat::kF32:
      std::memcpy(out, row.data(), row.size_bytes());
      return;
    case RowFormat::kBf16:
      for (size_t i = 0; i < row.size(); ++i) {
        const uint16_t bits = f32_to_bf16(row[i]);
        std::memcpy(out + 2 * i, &bits, sizeof bits);
      }
      return;
    case RowFormat::kInt8:
      encode_int8(row, out);
      return;
    case RowFormat::kFp8:
      encode_fp8(row, out);
      return;
  }
}

void reference_decode_row(RowFormat format, const std::byte* row, std::span<float> out) {
  const std::byte* scales = row + row_scale_offset(format, static_cast<int64_t>(out.size()));
  for (size_t i = 0; i < out.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    switch (format) {
      case RowFormat::kF32:
        out[i] = load<float>(row, index);
        break;
      case RowFormat::kBf16:
        out[i] = bf16_to_f32(load<uint16_t>(row, index));
        break;
      case RowFormat::kInt8:
        out[i] = static_cast<float>(load<int8_t>(row, index)) * load<float>(scales);
        break;
      case RowFormat::kFp8:
        out[i] = fp8_to_f32(load<uint8_t>(row, index)) * load<float>(scales, index / kScaleBlock);
        break;
    }
  }
}

}  // namespace wideep::math
