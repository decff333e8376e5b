#include "engine/draft_policy.h"

#include <gtest/gtest.h>

namespace wideep::engine {
namespace {

using std::chrono::microseconds;

// Runs steps of `num_sequences` and counts those with drafts; a draft of `accepted` in ten is
// right, and a step with drafts takes `cost` times as long.
int64_t steps_with_drafts(
    DraftPolicy& policy, int64_t num_sequences, double accepted, double cost, int64_t num_steps) {
  int64_t count = 0;
  for (int64_t step = 0; step < num_steps; ++step) {
    const bool drafts = policy.wants_drafts(num_sequences);
    const double micros = (drafts ? cost : 1.0) * 1000.0;
    const double tokens = static_cast<double>(100 * num_sequences) * (drafts ? 1 + accepted : 1);
    policy.observe({.num_sequences = num_sequences,
                    .with_drafts = drafts,
                    .duration = microseconds(static_cast<int64_t>(micros)),
                    .num_tokens = static_cast<int64_t>(tokens)});
    count += drafts ? 1 : 0;
  }
  return count;
}

constexpr int64_t kPeriod = DraftPolicy::kRetryEvery;
constexpr int64_t kHalf = DraftPolicy::kTrialSteps;
constexpr int64_t kTrial = 2 * kHalf;

TEST(DraftPolicy, GuessesOnWhereItPays) {
  DraftPolicy policy;
  EXPECT_EQ(steps_with_drafts(policy, 1, 0.8, 1.3, kTrial + kPeriod), kHalf + kPeriod);
}

TEST(DraftPolicy, StopsWhereItDoesNotPayButForTrials) {
  DraftPolicy policy;
  EXPECT_EQ(steps_with_drafts(policy, 1, 0.2, 1.3, 3 * (kTrial + kPeriod)), 3 * kHalf);
}

TEST(DraftPolicy, DecidesForEachSizeOfBatch) {
  DraftPolicy policy;
  steps_with_drafts(policy, 1, 0.8, 1.2, kTrial);
  steps_with_drafts(policy, 32, 0.8, 2.0, kTrial);
  EXPECT_TRUE(policy.wants_drafts(1));
  EXPECT_FALSE(policy.wants_drafts(32));
  EXPECT_FALSE(policy.wants_drafts(63));
  EXPECT_TRUE(policy.wants_drafts(64));  // not tried yet
}

TEST(DraftPolicy, ComesBackWhenTheTextHasBecomeEasier) {
  DraftPolicy policy;
  steps_with_drafts(policy, 4, 0.1, 1.3, kTrial + kPeriod / 2);
  EXPECT_FALSE(policy.wants_drafts(4));
  steps_with_drafts(policy, 4, 0.9, 1.3, kPeriod);
  EXPECT_TRUE(policy.wants_drafts(4));
}

TEST(DraftPolicy, ADisturbanceDoesNotDecide) {
  DraftPolicy policy;
  for (int64_t step = 0; step < kTrial; ++step) {
    const bool drafts = policy.wants_drafts(1);
    const bool is_disturbed = !drafts && step % 9 == 4;
    policy.observe({.num_sequences = 1,
                    .with_drafts = drafts,
                    .duration = microseconds(is_disturbed ? 90'000
                                             : drafts     ? 1300
                                                          : 1000),
                    .num_tokens = 1});
  }
  EXPECT_FALSE(policy.wants_drafts(1));
}

TEST(DraftPolicy, GuessesWhenTimeStandsStill) {
  DraftPolicy policy;
  for (int64_t i = 0; i < kHalf; ++i) {
    for (const bool drafts : {true, false})
      policy.observe({.num_sequences = 1, .with_drafts = drafts, .duration = {}, .num_tokens = 1});
  }
  EXPECT_TRUE(policy.wants_drafts(1));
}

}  // namespace
}  // namespace wideep::engine
