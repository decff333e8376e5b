// The elementwise kernels of every level against double precision.
#include "base/memory.h"
#include "base/random.h"
#include "math/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace wideep::math {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
// Rounding of one f32 operation.
constexpr double kEpsilon = 0x1p-24;

class Elementwise : public ::testing::TestWithParam<Isa> {
 protected:
  const Kernels& table() const { return kernels(GetParam()); }

  std::vector<float> random_values(int64_t n, float size) {
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values)
      value = random_.symmetric() * size;
    return values;
  }

  Random random_{11};
};

INSTANTIATE_TEST_SUITE_P(Levels, Elementwise, ::testing::ValuesIn(supported_isas()), [](auto& i) {
  return std::string(name(i.param));
});

const std::vector<int64_t> kSizes = {0, 1, 2, 7, 8, 15, 16, 17, 31, 64, 127, 576, 2048, 7168, 9999};

TEST_P(Elementwise, ExpKeepsItsBoundOverTheWholeRange) {
  std::vector<float> x;
  for (uint32_t bits = 0; bits <= std::bit_cast<uint32_t>(88.0F); bits += 1499)
    x.push_back(std::bit_cast<float>(bits));
  for (uint32_t bits = 0x80000000U; bits <= std::bit_cast<uint32_t>(-104.0F); bits += 1499)
    x.push_back(std::bit_cast<float>(bits));
  for (const float edge : {0.0F, -0.0F, 88.0F, -87.4F, -103.9F, -104.0F})
    x.push_back(edge);
  std::vector<float> y(x.size());
  table().exp(x.data(), std::ssize(x), y.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    const double bound = exact * 0x1p-22 + 0x1p-150;  // half the smallest denormal
    ASSERT_LE(std::abs(static_cast<double>(y[i]) - exact), bound) << x[i];
  }
}

TEST_P(Elementwise, ExpOfZeroIsOneAndFarBelowIsZero) {
  const std::vector<float> x = {0, -0.0F, -104.1F, -1e30F, -kInfinity, kNaN, 200, kInfinity};
  std::vector<float> y(x.size());
  table().exp(x.data(), std::ssize(x), y.data());
  EXPECT_EQ(y[0], 1);
  EXPECT_EQ(y[1], 1);
  EXPECT_EQ(y[2], 0);
  EXPECT_EQ(y[3], 0);
  EXPECT_EQ(y[4], 0);
  EXPECT_TRUE(std::isnan(y[5]));
  EXPECT_GT(y[6], 3e38F);
  EXPECT_GT(y[7], 3e38F);
}

TEST_P(Elementwise, RmsNormMatchesDoublePrecision) {
  for (const int64_t n : kSizes) {
    const std::vector<float> x = random_values(n, 3);
    const std::vector<float> weight = random_values(n, 2);
    std::vector<float> out(x.size());
    table().rms_norm(x.data(), weight.data(), n, 1e-6F, out.data());
    double sum = 0;
    for (const float v : x)
      sum += static_cast<double>(v) * v;
    const double inverse = 1 / std::sqrt(sum / static_cast<double>(n) + 1e-6);
    // The sum of n squares in f32 is off by at most n roundings; by lanes far fewer.
    const double bound = (static_cast<double>(n) + 8) * kEpsilon;
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = x[i] * inverse * weight[i];
      ASSERT_NEAR(out[i], exact, bound * std::abs(exact) + 1e-30) << n;
    }
    std::vector<float> in_place = x;
    table().rms_norm(in_place.data(), weight.data(), n, 1e-6F, in_place.data());
    EXPECT_EQ(in_place, out);
  }
}

TEST_P(Elementwise, SiluAndSigmoidMatchDoublePrecision) {
  for (const int64_t n : kSizes) {
    std::vector<float> gate = random_values(n, 30);
    if (n > 2) {
      gate[0] = -95;
      gate[1] = 95;
      gate[2] = 0;
    }
    const std::vector<float> up = random_values(n, 3);
    std::vector<float> out(gate.size());
    std::vector<float> sigmoid(gate.size());
    table().silu_mul(gate.data(), up.data(), n, out.data());
    table().sigmoid(gate.data(), n, sigmoid.data());
    for (size_t i = 0; i < gate.size(); ++i) {
      const double s = 1 / (1 + std::exp(-static_cast<double>(gate[i])));
      ASSERT_NEAR(sigmoid[i], s, s * 0x1p-21 + 1e-37) << gate[i];
      const double exact = gate[i] * s * up[i];
      ASSERT_NEAR(out[i], exact, std::abs(exact) * 0x1p-21 + 1e-35) << gate[i];
    }
  }
}

TEST_P(Elementwise, AxpyRoundsOncePerValue) {
  for (const int64_t n : kSizes) {
    const std::vector<float> x = random_values(n, 5);
    const std::vector<float> start = random_values(n, 5);
    std::vector<float> acc = start;
    table().axpy(0.7F, x.data(), n, acc.data());
    std::vector<float> sum = start;
    table().add(x.data(), n, sum.data());
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(acc[i], std::fma(0.7F, x[i], start[i]));
      ASSERT_EQ(sum[i], start[i] + x[i]);
    }
  }
}

TEST_P(Elementwise, WeightedRowsAreAddedInOrderAsTheyDecode) {
  for (const int64_t n : kSizes) {
    for (const RowFormat format : {RowFormat::kF32, RowFormat::kBf16}) {
      for (const size_t count : {0, 1, 3, 8}) {
        std::vector<std::vector<std::byte>> rows(count);
        std::vector<const std::byte*> pointers;
        std::vector<std::vector<float>> decoded(count);
        std::vector<float> weights;
        for (size_t k = 0; k < count; ++k) {
          rows[k].resize(static_cast<size_t>(row_bytes(format, n)));
          reference_encode_row(format, random_values(n, 5), rows[k].data());
          decoded[k].resize(static_cast<size_t>(n));
          reference_decode_row(format, rows[k].data(), decoded[k]);
          pointers.push_back(rows[k].data());
          weights.push_back(0.3F * static_cast<float>(k) - 1.3F);
        }
        const std::vector<float> shared = random_values(n, 5);
        const std::vector<float> start = random_values(n, 5);
        std::vector<float> with = start;
        std::vector<float> without = start;
        // What comes next is only a hint.
        const std::span next(pointers);
        const WeightedRows all{.format = format,
                               .rows = pointers,
                               .weights = weights,
                               .next = n % 2 == 0 ? next : next.first(0)};
        table().add_weighted_rows(all, shared.data(), n, with.data());
        table().add_weighted_rows(all, nullptr, n, without.data());
        for (size_t i = 0; i < start.size(); ++i) {
          float sum = 0.0F;
          for (size_t k = 0; k < count; ++k)
            sum = std::fma(weights[k], decoded[k][i], sum);
          ASSERT_EQ(without[i], start[i] + sum);
          ASSERT_EQ(with[i], start[i] + (sum + shared[i]));
        }
      }
    }
  }
}

TEST_P(Elementwise, StreamsCopyWholeLinesAndNothingElse) {
  AlignedBuffer from(1024);
  for (size_t i = 0; i < from.size(); ++i)
    from.data()[i] = static_cast<std::byte>(i * 7);
  for (const int64_t bytes : {0, 64, 128, 832}) {
    AlignedBuffer to(1024);
    table().stream(from.data(), bytes, to.data() + 64);
    table().stream_fence();
    for (int64_t i = 0; i < 1024; ++i) {
      const bool is_inside = i >= 64 && i < 64 + bytes;
      ASSERT_EQ(to.data()[i], is_inside ? from.data()[i - 64] : std::byte{0});
    }
  }
}

TEST_P(Elementwise, RoundsToBf16LikeTheScalarConversion) {
  std::vector<float> x = random_values(3001, 1e4F);
  for (const float special :
       {0.0F, -0.0F, kInfinity, -kInfinity, kNaN, 1e-40F, 3.4e38F, 1.00390625F})
    x.push_back(special);
  for (size_t n = 0; n <= x.size(); n += n < 40 ? 1 : 997) {
    std::vector<uint16_t> out(x.size() + 1, 0xABCD);
    table().to_bf16(x.data() + (x.size() - n), static_cast<int64_t>(n), out.data());
    for (size_t i = 0; i < n; ++i)
      ASSERT_EQ(out[i], f32_to_bf16(x[x.size() - n + i])) << x[x.size() - n + i];
    ASSERT_EQ(out[n], 0xABCD);
  }
}

TEST_P(Elementwise, SoftmaxAndLogSumExpMatchDoublePrecision) {
  for (const int64_t n : kSizes) {
    const std::vector<float> x = random_values(n, 40);
    std::vector<float> p = x;
    table().softmax(p.data(), n);
    if (n == 0) continue;
    const double max = *std::ranges::max_element(x);
    double sum = 0;
    for (const float v : x)
      sum += std::exp(static_cast<double>(v) - max);
    const double bound = 0x1p-21 + static_cast<double>(n) * kEpsilon;
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = std::exp(static_cast<double>(x[i]) - max) / sum;
      // x - max is rounded, which shifts the exponent.
      const double shift = std::abs(static_cast<double>(x[i]) - max) * kEpsilon;
      ASSERT_NEAR(p[i], exact, exact * (bound + shift) + 1e-38);
    }
    const double exact = max + std::log(sum);
    EXPECT_NEAR(table().log_sum_exp(x.data(), n), exact, std::abs(exact) * 1e-6 + bound);
  }
}

TEST_P(Elementwise, SoftmaxSurvivesMaskedAndHugeValues) {
  std::vector<float> x = {-kInfinity, 1e30F, 1e30F, -1e30F, 0, 5, 6, 7, 8, 9};
  table().softmax(x.data(), std::ssize(x));
  EXPECT_EQ(x[0], 0);
  EXPECT_EQ(x[1], 0.5F);
  EXPECT_EQ(x[2], 0.5F);
  EXPECT_EQ(x[3], 0);
  const std::vector<float> nothing(20, -kInfinity);
  EXPECT_EQ(table().log_sum_exp(nothing.data(), 20), -kInfinity);
}

TEST_P(Elementwise, ANaNAmongNumbersShowsInSoftmaxAndLogSumExp) {
  for (const size_t n : {2U, 20U, 64U, 70U}) {
    for (size_t at = 0; at < n; at += 7) {
      std::vector<float> x(n, 1.0F);
      x[at] = kNaN;
      EXPECT_TRUE(std::isnan(table().log_sum_exp(x.data(), static_cast<int64_t>(n))))
          << at << " of " << n;
      table().softmax(x.data(), static_cast<int64_t>(n));
      for (const float value : x)
        ASSERT_TRUE(std::isnan(value)) << at << " of " << n;
    }
  }
}

TEST_P(Elementwise, RotatesPairsInBothLayouts) {
  for (const int64_t n : {0, 2, 4, 10, 16, 30, 64, 128, 130}) {
    const std::vector<float> x = random_values(n, 3);
    std::vector<float> cosines(static_cast<size_t>(n / 2));
    std::vector<float> sines(cosines.size());
    for (size_t j = 0; j < cosines.size(); ++j) {
      const double angle = random_.uniform() * 7;
      cosines[j] = static_cast<float>(std::cos(angle));
      sines[j] = static_cast<float>(std::sin(angle));
    }
    std::vector<float> pairs = x;
    table().rope_interleaved(pairs.data(), cosines.data(), sines.data(), n);
    std::vector<float> halves = x;
    table().rope_half(halves.data(), cosines.data(), sines.data(), n);
    const auto expect = [&](size_t a, size_t b, size_t j, const std::vector<float>& out) {
      const double bound = 4 * kEpsilon * (std::abs(x[a]) + std::abs(x[b]));
      ASSERT_NEAR(out[a], static_cast<double>(x[a]) * cosines[j] - x[b] * double{sines[j]}, bound);
      ASSERT_NEAR(out[b], static_cast<double>(x[a]) * sines[j] + x[b] * double{cosines[j]}, bound);
    };
    for (size_t j = 0; j < cosines.size(); ++j) {
      expect(2 * j, 2 * j + 1, j, pairs);
      expect(j, j + cosines.size(), j, halves);
    }
  }
}

TEST_P(Elementwise, ArgmaxTakesTheLowestIndexAmongEquals) {
  for (const int64_t n : {1, 2, 7, 16, 17, 100, 4097}) {
    for (int round = 0; round < 50; ++round) {
      std::vector<float> x(static_cast<size_t>(n));
      for (float& value : x)
        value = static_cast<float>(random_.below(5));
      const auto expected = std::ranges::max_element(x) - x.begin();
      float max = -1;
      ASSERT_EQ(table().argmax(x.data(), n, &max), expected);
      ASSERT_EQ(max, x[static_cast<size_t>(expected)]);
    }
  }
}

TEST_P(Elementwise, ArgmaxCountsNanAsMinusInfinity) {
  float max = 0;
  std::vector<float> x(40, kNaN);
  EXPECT_EQ(table().argmax(x.data(), 40, &max), 0);
  EXPECT_TRUE(std::isnan(max));
  x[33] = -5;
  EXPECT_EQ(table().argmax(x.data(), 40, &max), 33);
  EXPECT_EQ(max, -5);
  x[34] = kInfinity;
  EXPECT_EQ(table().argmax(x.data(), 40, &max), 34);
  const std::vector<float> lowest(40, -kInfinity);
  EXPECT_EQ(table().argmax(lowest.data(), 40, &max), 0);
  EXPECT_EQ(max, -kInfinity);
}

// Rows lie in larger buffers: what a kernel reads or writes beyond the end would show.
TEST_P(Elementwise, TouchesNothingBeyondTheRow) {
  for (int64_t n = 0; n < 70; ++n) {
    std::vector<float> x = random_values(n + 40, 2);
    const std::vector<float> before = x;
    std::vector<float> other = x;
    std::fill(other.begin() + n, other.end(), kNaN);
    std::vector<float> y = other;
    table().rms_norm(other.data(), other.data(), n, 1e-6F, x.data());
    table().silu_mul(other.data(), other.data(), n, x.data());
    table().axpy(2, other.data(), n, x.data());
    table().add(other.data(), n, x.data());
    table().exp(other.data(), n, x.data());
    table().sigmoid(other.data(), n, x.data());
    table().softmax(x.data(), n);
    table().rope_half(x.data(), other.data(), other.data(), n / 2 * 2);
    table().rope_interleaved(x.data(), other.data(), other.data(), n / 2 * 2);
    for (int64_t i = 0; i < n; ++i)
      ASSERT_FALSE(std::isnan(x[static_cast<size_t>(i)])) << n;
    for (size_t i = static_cast<size_t>(n); i < x.size(); ++i)
      ASSERT_EQ(x[i], before[i]) << n;
    if (n > 0) {
      ASSERT_FALSE(std::isnan(table().log_sum_exp(y.data(), n)));
    }
  }
}

TEST(ScalarLog, MatchesDoublePrecision) {
  Random random(12);
  for (int i = 0; i < 20000; ++i) {
    const auto x = static_cast<float>(std::exp((random.uniform() - 0.5) * 170));
    const double exact = std::log(static_cast<double>(x));
    ASSERT_NEAR(scalar_log(x), exact, std::abs(exact) * 0x1p-22 + 1e-7) << x;
  }
}

}  // namespace
}  // namespace wideep::math
