#include "model/rope.h"

#include "model/exact_math.h"

#include <gtest/gtest.h>

#include <cmath>

namespace wideep::model {
namespace {

RopeConfig yarn(double mscale) {
  return {.theta = 10000,
          .is_yarn = true,
          .factor = 40,
          .original_positions = 4096,
          .beta_fast = 32,
          .beta_slow = 1,
          .mscale = mscale,
          .mscale_all_dim = mscale};
}

TEST(ExactMath, AgreesWithTheLibraryToDoublePrecision) {
  for (double x = -200; x < 200; x += 0.3701) {
    EXPECT_NEAR(exact_sin_cos(x).sin, std::sin(x), 1e-15);
    EXPECT_NEAR(exact_sin_cos(x).cos, std::cos(x), 1e-15);
    EXPECT_NEAR(exact_exp(x) / std::exp(x), 1, 1e-13);
    if (x > 0) EXPECT_NEAR(exact_log(x), std::log(x), 1e-15 * std::max(1.0, std::log(x)));
  }
  for (const double x : {163839.0, 1048575.5, 5.0e8}) {
    EXPECT_NEAR(exact_sin_cos(x).sin, std::sin(x), 1e-14);
    EXPECT_NEAR(exact_sin_cos(x).cos, std::cos(x), 1e-14);
  }
  EXPECT_EQ(exact_sin_cos(0).sin, 0);
  EXPECT_EQ(exact_sin_cos(0).cos, 1);
  EXPECT_EQ(exact_log(1), 0);
}

// The constants of DeepSeek-R1 and V2-Lite.
TEST(Rope, GivesTheSoftmaxScaleOfTheReleasedModels) {
  EXPECT_NEAR(softmax_scale(yarn(1), 192), 0.135233779, 1e-9);
  EXPECT_NEAR(softmax_scale(yarn(0.707), 192), 0.114721387, 1e-9);
  EXPECT_DOUBLE_EQ(softmax_scale(RopeConfig{}, 64), 0.125);
}

TEST(Rope, LeavesTheSoftmaxScaleWhenMscaleAllDimIsAbsent) {
  RopeConfig rope = yarn(1);
  rope.mscale_all_dim = 0;
  EXPECT_DOUBLE_EQ(softmax_scale(rope, 64), 0.125);
  EXPECT_NEAR(rope_attention_factor(rope), 1.368888, 1e-6);
  EXPECT_EQ(rope_attention_factor(yarn(1)), 1);
  EXPECT_EQ(rope_attention_factor(RopeConfig{}), 1);
}

// R1: pairs below 10 keep their frequency, pairs from 23 on turn 40 times slower.
TEST(Rope, StretchesOnlyTheSlowPairs) {
  const std::vector<double> plain = rope_frequencies({.theta = 10000}, 64);
  const std::vector<double> stretched = rope_frequencies(yarn(1), 64);
  ASSERT_EQ(plain.size(), 32U);
  for (size_t j = 0; j < 32; ++j) {
    EXPECT_NEAR(plain[j] / std::pow(10000.0, -2.0 * j / 64), 1, 1e-13);
    if (j <= 10) EXPECT_EQ(stretched[j], plain[j]);
    if (j >= 23) EXPECT_NEAR(stretched[j] * 40 / plain[j], 1, 1e-15);
    if (j > 10 && j < 23) EXPECT_LT(stretched[j], plain[j]);
  }
}

TEST(Rope, TablesHoldTheAngleOfTheRowsPosition) {
  ThreadPool pool({.num_threads = 2});
  RopeRows rows({.theta = 10000}, 8, 4);
  rows.set(pool, std::vector<int64_t>{0, 7, 100000});
  EXPECT_EQ(rows.cosines(0)[3], 1.0F);
  EXPECT_EQ(rows.sines(0)[3], 0.0F);
  EXPECT_FLOAT_EQ(rows.cosines(1)[0], std::cos(7.0F));
  EXPECT_FLOAT_EQ(rows.sines(1)[1], std::sin(0.7F));
  EXPECT_FLOAT_EQ(rows.sines(2)[3], static_cast<float>(std::sin(100.0)));
}

}  // namespace
}  // namespace wideep::model
