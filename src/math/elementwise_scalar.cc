// The elementwise kernels in plain C++: the judge of the vector versions. exp and log are our own,
// because libm differs from machine to machine.
#include "math/kernel_tables.h"
#include "math/scalar_values.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace wideep::math {

float scalar_exp(float x) {
  if (x < -104.0F) return 0.0F;
  x = std::min(x, 88.7F);
  constexpr float kMagic = 12582912.0F;  // 1.5 * 2^23: rounds to an integer
  const float shifted = x * 1.44269504F + kMagic;
  const float n = shifted - kMagic;
  // ln 2 in two parts: n times the first is exact.
  float r = x - n * 0.693359375F;
  r = r - n * -2.12194440e-4F;
  // Taylor to r^7, |r| <= 0.35: truncation below 3e-9.
  float p = 1.0F / 5040;
  for (const float c : {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F})
    p = p * r + c;
  // 2^n in two factors, so that a denormal result is rounded once and 2^127 does not overflow.
  const auto exponent = static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) - 0x4B400000U);
  const int32_t half = exponent / 2;
  const auto power = [](int32_t e) {
    return std::bit_cast<float>(static_cast<uint32_t>(e + 127) << 23);
  };
  return p * power(half) * power(exponent - half);
}

float scalar_log(float x) {
  if (std::isnan(x)) return x;
  int32_t exponent = 0;
  if (x < 0x1p-126F) {
    x *= 0x1p32F;
    exponent = -32;
  }
  const auto bits = std::bit_cast<int32_t>(x);
  // m in [sqrt(1/2), sqrt(2)).
  const int32_t above = (bits - 0x3F3504F3) >> 23;
  exponent += above;
  const float m = std::bit_cast<float>(bits - (above << 23));
  // log(m) = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.172.
  const float s = (m - 1.0F) / (m + 1.0F);
  const float z = s * s;
  const float tail = ((z * (1.0F / 9) + 1.0F / 7) * z + 0.2F) * z + 1.0F / 3;
  const float log_m = 2.0F * s + 2.0F * s * z * tail;
  const auto e = static_cast<float>(exponent);
  return e * 0.693359375F + (e * -2.12194440e-4F + log_m);
}

namespace scalar {
namespace {

struct Elementwise {
  static void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
    float sum = 0.0F;
    for (int64_t i = 0; i < n; ++i)
      sum += x[i] * x[i];
    const float inverse = 1.0F / std::sqrt(sum / static_cast<float>(n) + eps);
    for (int64_t i = 0; i < n; ++i)
      out[i] = x[i] * inverse * weight[i];
  }

  static float sigmoid_of(float x) { return 1.0F / (1.0F + scalar_exp(std::min(-x, 88.0F))); }

  static void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i)
      out[i] = gate[i] * sigmoid_of(gate[i]) * up[i];
  }

  static void axpy(float weight, const float* x, int64_t n, float* acc) {
    for (int64_t i = 0; i < n; ++i)
      acc[i] = std::fma(weight, x[i], acc[i]);
  }

  static void add(const float* x, int64_t n, float* acc) {
    for (int64_t i = 0; i < n; ++i)
      acc[i] += x[i];
  }

  static float value_of(RowFormat format, const std::byte* row, int64_t i) {
    return format == RowFormat::kF32 ? load<float>(row, i) : bf16_to_f32(load<uint16_t>(row, i));
  }

  static void add_weighted_rows(const WeightedRows& rows,
                                const float* shared,
                                int64_t n,
                                float* x) {
    for (int64_t i = 0; i < n; ++i) {
      float sum = 0.0F;
      for (size_t k = 0; k < rows.rows.size(); ++k)
        sum = std::fma(rows.weights[k], value_of(rows.format, rows.rows[k], i), sum);
      if (shared != nullptr) sum += shared[i];
      x[i] += sum;
    }
  }

  static void stream(const std::byte* from, int64_t bytes, std::byte* to) {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }

  static void stream_fence() {}

  static void to_bf16(const float* x, int64_t n, uint16_t* out) {
    for (int64_t i = 0; i < n; ++i)
      out[i] = f32_to_bf16(x[i]);
  }

  static void exp(const float* x, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i)
      out[i] = scalar_exp(x[i]);
  }

  static void sigmoid(const float* x, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i)
      out[i] = sigmoid_of(x[i]);
  }

  static void softmax(float* x, int64_t n) {
    if (n == 0) return;
    const float max = *std::max_element(x, x + n);
    float sum = 0.0F;
    for (int64_t i = 0; i < n; ++i) {
      x[i] = scalar_exp(x[i] - max);
      sum += x[i];
    }
    for (int64_t i = 0; i < n; ++i)
      x[i] /= sum;
  }

  static void rotate(float& a, float& b, float cosine, float sine) {
    const float rotated = a * cosine - b * sine;
    b = a * sine + b * cosine;
    a = rotated;
  }

  static void rope_interleaved(float* x, const float* cosines, const float* sines, int64_t n) {
    for (int64_t j = 0; j < n / 2; ++j)
      rotate(x[2 * j], x[2 * j + 1], cosines[j], sines[j]);
  }

  static void rope_half(float* x, const float* cosines, const float* sines, int64_t n) {
    for (int64_t j = 0; j < n / 2; ++j)
      rotate(x[j], x[j + n / 2], cosines[j], sines[j]);
  }

  static int64_t argmax(const float* x, int64_t n, float* max) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; ++i) {
      const float least = best < 0 ? -std::numeric_limits<float>::infinity() : x[best];
      if (x[i] > least) best = i;
    }
    best = std::max(best, int64_t{0});
    *max = x[best];
    return best;
  }

  static float log_sum_exp(const float* x, int64_t n) {
    const float max = *std::max_element(x, x + n);
    if (max == -std::numeric_limits<float>::infinity()) return max;
    float sum = 0.0F;
    for (int64_t i = 0; i < n; ++i)
      sum += scalar_exp(x[i] - max);
    return max + scalar_log(sum);
  }
};

}  // namespace

void add_elementwise(Kernels& table) {
  fill_elementwise<Elementwise>(table);
}

}  // namespace scalar
}  // namespace wideep::math
