#include "model/exact_math.h"

#include "base/check.h"

#include <bit>

namespace wideep::model {
namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr double kLn2 = 0.693147180559945309417;

// pi / 2 in three parts; the first two have 23 bits, so that n times them is exact for |n| < 2^30.
constexpr double kHalfPi1 = 0x1.921fb4p+0;
constexpr double kHalfPi2 = 0x1.4442dp-24;
constexpr double kHalfPi3 = 0x1.8469898cc517p-48;

// Taylor series around 0 for |x| <= pi / 4: the next term is below 2^-56.
double sin_series(double x) {
  const double y = x * x;
  double sum = 0;
  for (int n = 21; n >= 3; n -= 2)
    sum = (1 + sum) * -y / (n * (n - 1));
  return x * (1 + sum);
}

double cos_series(double x) {
  const double y = x * x;
  double sum = 0;
  for (int n = 22; n >= 2; n -= 2)
    sum = (1 + sum) * -y / (n * (n - 1));
  return 1 + sum;
}

// The nearest integer, for |x| < 2^51, without libm.
double round_to_integer(double x) {
  constexpr double kShift = 0x1.8p52;
  return (x + kShift) - kShift;
}

}  // namespace

SinCos exact_sin_cos(double x) {
  const double n = round_to_integer(x / (kPi / 2));
  const double r = ((x - n * kHalfPi1) - n * kHalfPi2) - n * kHalfPi3;
  const double s = sin_series(r);
  const double c = cos_series(r);
  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

// x = m * 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh((m - 1) / (m + 1)).
double exact_log(double x) {
  WD_CHECK(x > 0);
  const auto bits = std::bit_cast<uint64_t>(x);
  auto exponent = static_cast<int64_t>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFFULL) | 0x3FF0000000000000ULL);
  if (m > 1.4142135623730951) {
    m /= 2;
    ++exponent;
  }
  const double t = (m - 1) / (m + 1);
  double sum = 0;
  for (int n = 25; n >= 1; n -= 2)
    sum = sum * t * t + 1.0 / n;
  return static_cast<double>(exponent) * kLn2 + 2 * t * sum;
}

double exact_exp(double x) {
  WD_CHECK(x >= -700);
  WD_CHECK(x <= 700);
  const double n = round_to_integer(x / kLn2);
  const double r = x - n * kLn2;
  double sum = 1;
  for (int i = 18; i >= 1; --i)
    sum = 1 + sum * r / i;
  return sum * std::bit_cast<double>(static_cast<uint64_t>(static_cast<int64_t>(n) + 1023) << 52);
}

double exact_pow(double base, double exponent) {
  return exact_exp(exponent * exact_log(base));
}

}  // namespace wideep::model
