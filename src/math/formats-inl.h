// Encoding and decoding of rows as plain loops that the compiler vectorises; included once per ISA
// level. Every loop is elementwise or an integer maximum or sum, so that all levels give the same
// bits as reference_encode_row.
#pragma once

#include "math/formats.h"
#include "math/packed_layout.h"
#include "math/rows-inl.h"

namespace wideep::math {
namespace {

inline float as_f32(uint32_t bits) {
  return __builtin_bit_cast(float, bits);
}

inline uint32_t as_bits(float value) {
  return __builtin_bit_cast(uint32_t, value);
}

constexpr uint32_t kAbsolute = 0x7FFFFFFFU;
constexpr float kRoundMagic = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
constexpr uint32_t kRoundMagicBits = 0x4B400000U;

inline int64_t pad_to_64(int64_t cols) {
  return (cols + 63) / 64 * 64;
}

// The bits of the largest magnitude; a NaN anywhere wins.
inline uint32_t magnitude_max(const float* x, int64_t n, uint32_t least_bits) {
  uint32_t most = least_bits;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = as_bits(x[i]) & kAbsolute;
    most = bits > most ? bits : most;
  }
  return most;
}

inline void round_to_bf16(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = as_bits(x[i]);
    const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
    const uint32_t quiet = (bits >> 16) | 0x40U;
    out[i] = static_cast<uint16_t>((bits & kAbsolute) > 0x7F800000U ? quiet : rounded);
  }
}

inline void encode_int8(const float* x, int64_t n, int8_t* codes, std::byte* scales) {
  const float amax = as_f32(magnitude_max(x, n, 0));
  const float inverse = amax == 0.0F ? 0.0F : 127.0F / amax;
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float shifted = x[i] * inverse + kRoundMagic;
    auto q = static_cast<int32_t>(as_bits(shifted) - kRoundMagicBits);
    q = q > 127 ? 127 : q;
    q = q < -127 ? -127 : q;
    codes[i] = static_cast<int8_t>(q);
    sum += q;
  }
  *reinterpret_cast<float*>(scales) = amax / 127.0F;
  *reinterpret_cast<int32_t*>(scales + 4) = sum;
}

inline float fp8_scale(const float* x, int64_t n) {
  return as_f32(magnitude_max(x, n, as_bits(1e-4F))) / kFp8Max;
}

inline void encode_fp8_block(const float* x, int64_t n, float scale, uint8_t* codes) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = as_bits(x[i] / scale);
    const uint32_t sign = (bits >> 24) & 0x80U;
    const uint32_t absolute = bits & kAbsolute;
    const uint32_t clipped = absolute > as_bits(kFp8Max) ? as_bits(kFp8Max) : absolute;
    // Below 2^-6 codes are multiples of 2^-9; above, the mantissa loses its last 20 bits.
    const uint32_t small = as_bits(as_f32(clipped) * 512.0F + kRoundMagic) - kRoundMagicBits;
    const uint32_t large =
        ((clipped + 0x7FFFFU + ((clipped >> 20) & 1U)) >> 20) - (uint32_t{120} << 3);
    const uint32_t code = as_f32(clipped) < 0.015625F ? small : large;
    codes[i] = static_cast<uint8_t>(sign | (absolute > 0x7F800000U ? 0x7FU : code));
  }
}

inline void clear(std::byte* from, const std::byte* to) {
  for (; from < to; ++from)
    *from = std::byte{0};
}

inline void encode_row(RowFormat format, const float* row, int64_t cols, std::byte* out) {
  const int64_t padded = pad_to_64(cols);
  switch (format) {
    case RowFormat::kF32: {
      auto* values = reinterpret_cast<float*>(out);
      for (int64_t i = 0; i < cols; ++i)
        values[i] = row[i];
      return clear(out + cols * 4, out + padded * 4);
    }
    case RowFormat::kBf16:
      round_to_bf16(row, cols, reinterpret_cast<uint16_t*>(out));
      return clear(out + cols * 2, out + padded * 2);
    case RowFormat::kInt8:
      clear(out + cols, out + padded + 64);
      return encode_int8(row, cols, reinterpret_cast<int8_t*>(out), out + padded);
    case RowFormat::kFp8: {
      const int64_t blocks = (cols + kScaleBlock - 1) / kScaleBlock;
      clear(out + cols, out + padded + pad_to_64(blocks * 4));
      auto* scales = reinterpret_cast<float*>(out + padded);
      const auto length = [&](int64_t b) { return least(kScaleBlock, cols - b * kScaleBlock); };
      // A block's scale while its predecessor is encoded: codes that wait for the maximum of their
      // own block take half as long again.
      for (int64_t b = -1; b < blocks; ++b) {
        if (b + 1 < blocks) scales[b + 1] = fp8_scale(row + (b + 1) * kScaleBlock, length(b + 1));
        if (b >= 0)
          encode_fp8_block(row + b * kScaleBlock, length(b), scales[b],
                           reinterpret_cast<uint8_t*>(out) + b * kScaleBlock);
      }
      return;
    }
  }
}

inline float decode_fp8(uint8_t code) {
  const uint32_t magnitude = code & 0x7FU;
  const uint32_t sign = uint32_t{code & 0x80U} << 24;
  // As the mantissa of a float 2^120 times too small; exact, denormals included.
  const uint32_t value = as_bits(as_f32(magnitude << 20) * 0x1p120F);
  return as_f32(sign | (magnitude == 0x7FU ? 0x7FC00000U : value));
}

inline void decode_row(RowFormat format, const std::byte* row, int64_t cols, float* out) {
  const auto* scales = reinterpret_cast<const float*>(row + pad_to_64(cols));
  switch (format) {
    case RowFormat::kF32:
      for (int64_t i = 0; i < cols; ++i)
        out[i] = reinterpret_cast<const float*>(row)[i];
      return;
    case RowFormat::kBf16:
      for (int64_t i = 0; i < cols; ++i)
        out[i] = as_f32(uint32_t{reinterpret_cast<const uint16_t*>(row)[i]} << 16);
      return;
    case RowFormat::kInt8:
      for (int64_t i = 0; i < cols; ++i)
        out[i] = static_cast<float>(reinterpret_cast<const int8_t*>(row)[i]) * scales[0];
      return;
    case RowFormat::kFp8:
      for (int64_t begin = 0; begin < cols; begin += kScaleBlock) {
        const float scale = scales[begin / kScaleBlock];
        for (int64_t i = begin; i < least(begin + kScaleBlock, cols); ++i)
          out[i] = decode_fp8(reinterpret_cast<const uint8_t*>(row)[i]) * scale;
      }
      return;
  }
}

}  // namespace
}  // namespace wideep::math
