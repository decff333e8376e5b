// e4m3 codes -> bf16, exact for all 256 codes, by two look-ups of 128 bytes (VBMI): the low and the
// high byte of the bf16; the sign is added and unpacks put the bytes together.
#pragma once

#include "math/packed_layout.h"
#include "math/rows-inl.h"

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace wideep::math {
namespace {

constexpr uint32_t fp8_magnitude_to_bf16(uint32_t code) {
  const uint32_t exponent = code >> 3;
  const uint32_t mantissa = code & 7;
  if (code == 0x7F) return 0x7FC0;
  if (exponent > 0) return ((exponent + 120) << 7) | (mantissa << 4);
  if (mantissa == 0) return 0;
  const uint32_t top = mantissa >= 4 ? 2 : mantissa >= 2 ? 1 : 0;  // mantissa * 2^-9, normalised
  return ((118 + top) << 7) | ((mantissa << (7 - top)) & 0x7F);
}

struct ByteTable {
  alignas(64) uint8_t bytes[128];
};

constexpr ByteTable fp8_table(int shift) {
  ByteTable table{};
  for (uint32_t code = 0; code < 128; ++code)
    table.bytes[code] = static_cast<uint8_t>(fp8_magnitude_to_bf16(code) >> shift);
  return table;
}

constexpr ByteTable kFp8Low = fp8_table(0);
constexpr ByteTable kFp8High = fp8_table(8);

// Holds the tables in registers.
struct Fp8ToBf16 {
  __m512i low0 = _mm512_load_si512(kFp8Low.bytes);
  __m512i low1 = _mm512_load_si512(kFp8Low.bytes + 64);
  __m512i high0 = _mm512_load_si512(kFp8High.bytes);
  __m512i high1 = _mm512_load_si512(kFp8High.bytes + 64);

  // A line of 64 codes (fp8_code_offset) -> two vectors of 16 columns x 2 inputs.
  void operator()(const std::byte* line, __m512i (&out)[2]) const {
    const __m512i codes = _mm512_loadu_si512(line);
    const __m512i low = _mm512_permutex2var_epi8(low0, codes, low1);
    __m512i high = _mm512_permutex2var_epi8(high0, codes, high1);
    // high | (codes & 0x80)
    high = _mm512_ternarylogic_epi32(high, codes, _mm512_set1_epi8(-128), 0xF8);
    out[0] = _mm512_unpacklo_epi8(low, high);
    out[1] = _mm512_unpackhi_epi8(low, high);
  }
};

// Measured: three quarters of a block ahead reads at full speed, a quarter at 0.85 of it.
constexpr int64_t kExpandAhead = 6144;

// A block of `inputs` x 64 codes -> bf16 [inputs/2][64][2].
inline void expand_fp8_to_bf16(const std::byte* codes, int64_t inputs, std::byte* out) {
  const Fp8ToBf16 convert;
  for (int64_t line = 0; line < inputs; ++line) {
    prefetch_l2(codes + line * 64 + kExpandAhead);
    __m512i values[2];
    convert(codes + line * 64, values);
    _mm512_store_si512(out + line * 128, values[0]);
    _mm512_store_si512(out + line * 128 + 64, values[1]);
  }
}

}  // namespace
}  // namespace wideep::math
