// Coefficients of our own exponentials, shared by all instruction-set levels (no libm in the
// numeric path: glibc picks variants by CPU). Chebyshev interpolation of the relative error.
#pragma once

#include <array>

namespace wideep::math {

// exp(r) = 1 + r (c0 + c1 r + … + c5 r^5) for |r| <= ln(2) / 2; relative error 1.1e-8 (2^-26.5).
inline constexpr std::array<float, 6> kExpPolynomial = {
    0x1.0p+0f, 0x1.0p-1f, 0x1.55547cp-3f, 0x1.5554eap-5f, 0x1.123d82p-7f, 0x1.6d4316p-10f};
// exp2(f) = 1 + f (c0 + … + c4 f^4) for |f| <= 1/2; relative error 2.1e-7 (2^-22.2). Attention
// takes its softmax in base 2: the scale absorbs log2(e).
inline constexpr std::array<float, 5> kExp2Polynomial = {
    0x1.62e430p-1f, 0x1.ebfa4cp-3f, 0x1.c6afeep-5f, 0x1.3cbf60p-7f, 0x1.5ec866p-10f};

inline constexpr float kLog2E = 0x1.715476p+0f;
// ln(2) in two parts; n * kLn2High is exact for |n| < 2^10.
inline constexpr float kLn2High = 0x1.62e4p-1f;
inline constexpr float kLn2Low = 0x1.7f7d1cp-20f;

}  // namespace wideep::math
