// Whole numbers of pieces. Values are not negative, units are positive.
#pragma once

#include <concepts>
#include <type_traits>

namespace wideep {

// How many pieces of `unit` it takes to hold `value`.
template <std::integral T>
constexpr T divide_up(T value, std::type_identity_t<T> unit) {
  return (value + unit - 1) / unit;
}

// The least multiple of `unit` that is not below `value`.
template <std::integral T>
constexpr T round_up(T value, std::type_identity_t<T> unit) {
  return divide_up(value, unit) * unit;
}

}  // namespace wideep
