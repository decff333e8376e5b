// What the plain C++ of this module shares: reading values at any address, and rounding without
// libm.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace wideep::math {

// Value `index` of those that begin at `from`.
template <typename T>
T load(const std::byte* from, int64_t index = 0) {
  T value;
  std::memcpy(&value, from + index * static_cast<int64_t>(sizeof(T)), sizeof value);
  return value;
}

// The nearest integer, ties to even, for |x| < 2^22, in any rounding mode of anyone's making; a
// loop over it is vectorised. Others, NaN among them, give some integer.
inline int32_t round_to_int(float x) {
  constexpr float kMagic = 12582912.0F;  // 1.5 * 2^23: the unit place is the last mantissa bit
  return static_cast<int32_t>(std::bit_cast<uint32_t>(x + kMagic) -
                              std::bit_cast<uint32_t>(kMagic));
}

}  // namespace wideep::math
