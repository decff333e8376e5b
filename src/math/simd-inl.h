// What needs no intrinsic of a level, for vectors of any width.
#pragma once

namespace wideep::math {
namespace {

template <typename Vector>
struct SimdArithmetic {
  using Float = Vector;

  static Float zero() { return Float{}; }

  static Float add(Float a, Float b) { return a + b; }

  static Float sub(Float a, Float b) { return a - b; }

  static Float mul(Float a, Float b) { return a * b; }

  static Float div(Float a, Float b) { return a / b; }
};

}  // namespace
}  // namespace wideep::math
