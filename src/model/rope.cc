#include "model/rope.h"

#include "base/check.h"
#include "model/exact_math.h"

#include <algorithm>
#include <cmath>

namespace wideep::model {
namespace {

constexpr double kTwoPi = 6.28318530717958647692;

// The (fractional) pair whose wavelength makes `rotations` turns over the original context:
// corr(n) = d ln(L0 / (2 pi n)) / (2 ln base).
double correction_pair(const RopeConfig& rope, int64_t dim, double rotations) {
  const double turns = static_cast<double>(rope.original_positions) / (rotations * kTwoPi);
  return static_cast<double>(dim) * exact_log(turns) / (2 * exact_log(rope.theta));
}

// m(s, mu) = 0.1 mu ln(s) + 1 for s > 1.
double mscale(double factor, double mu) {
  return factor <= 1 ? 1 : 0.1 * mu * exact_log(factor) + 1;
}

}  // namespace

// f_j = b^(-2j/d), and for YaRN f_j * ((1 - ramp_j) + ramp_j / s): pairs that turn often keep their
// frequency, slow ones are stretched by s, those between `low` and `high` are blended.
std::vector<double> rope_frequencies(const RopeConfig& rope, int64_t dim) {
  WD_CHECK(dim % 2 == 0);
  std::vector<double> frequencies(static_cast<size_t>(dim / 2));
  double low = 0;
  double high = 0;
  if (rope.is_yarn) {
    low = std::max(std::floor(correction_pair(rope, dim, rope.beta_fast)), 0.0);
    high = std::min(std::ceil(correction_pair(rope, dim, rope.beta_slow)),
                    static_cast<double>(dim - 1));
    if (low == high) high += 0.001;
  }
  for (int64_t j = 0; j < dim / 2; ++j) {
    const double exponent = -2.0 * static_cast<double>(j) / static_cast<double>(dim);
    double frequency = exact_pow(rope.theta, exponent);
    if (rope.is_yarn) {
      const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
      frequency *= (1 - ramp) + ramp / rope.factor;
    }
    frequencies[static_cast<size_t>(j)] = frequency;
  }
  return frequencies;
}

double rope_attention_factor(const RopeConfig& rope) {
  if (!rope.is_yarn) return 1;
  return mscale(rope.factor, rope.mscale) / mscale(rope.factor, rope.mscale_all_dim);
}

double softmax_scale(const RopeConfig& rope, int64_t width) {
  const double scale = 1 / std::sqrt(static_cast<double>(width));
  if (!rope.is_yarn || rope.mscale_all_dim == 0) return scale;
  const double m = mscale(rope.factor, rope.mscale_all_dim);
  return scale * m * m;
}

RopeRows::RopeRows(const RopeConfig& rope, int64_t dim, int64_t rows_max)
    : frequencies_(rope_frequencies(rope, dim)),
      factor_(rope_attention_factor(rope)),
      cosines_(rows_max, dim / 2),
      sines_(rows_max, dim / 2) {}

void RopeRows::set(ThreadPool& pool, std::span<const int64_t> positions) {
  WD_CHECK(static_cast<int64_t>(positions.size()) <= cosines_.rows());
  pool.for_each(static_cast<int64_t>(positions.size()), [&](int64_t row, int) {
    for (size_t j = 0; j < frequencies_.size(); ++j) {
      const SinCos angle =
          exact_sin_cos(static_cast<double>(positions[static_cast<size_t>(row)]) * frequencies_[j]);
      cosines_(row, static_cast<int64_t>(j)) = static_cast<float>(angle.cos * factor_);
      sines_(row, static_cast<int64_t>(j)) = static_cast<float>(angle.sin * factor_);
    }
  });
}

}  // namespace wideep::model
