// Elementary functions in double precision from additions, multiplications and divisions alone: the
// same bits on every machine, whatever its libm. For tables and constants, not for hot loops.
#pragma once

#include <cstdint>

namespace wideep::model {

struct SinCos {
  double sin = 0;
  double cos = 1;
};

// |x| <= 2^30; absolute error < 1e-14 for |x| < 1e6 (the reduction's error grows with |x|).
SinCos exact_sin_cos(double x);
// Relative error < 1e-15; x > 0 and finite.
double exact_log(double x);
// Relative error < 1e-14; |x| <= 700.
double exact_exp(double x);
// base^exponent, base > 0.
double exact_pow(double base, double exponent);

}  // namespace wideep::model
