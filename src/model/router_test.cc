#include "model/router.h"

#include "base/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace wideep::model {
namespace {

struct Choice {
  std::vector<int64_t> experts;
  std::vector<float> weights;
};

Choice choose(const RouterConfig& config,
              std::vector<float> logits,
              const std::vector<float>& bias = {},
              const math::Kernels& kernels = math::reference_kernels()) {
  std::vector<float> scratch(logits.size());
  std::vector<ExpertId> experts(static_cast<size_t>(config.top_k));
  Choice choice{.weights = std::vector<float>(experts.size())};
  choose_experts(
      kernels, config, bias,
      {.scores = logits, .scratch = scratch, .experts = experts, .weights = choice.weights});
  for (const ExpertId expert : experts)
    choice.experts.push_back(index(expert));
  return choice;
}

RouterConfig sigmoid_config(int64_t experts, int64_t top_k) {
  return {.score = RouterConfig::Score::kSigmoid,
          .has_correction_bias = true,
          .num_experts = experts,
          .top_k = top_k,
          .renormalise = true,
          .scale = 2.5};
}

TEST(Router, ChoosesTheLargestInDescendingOrderAndTiesGoToTheLowestIndex) {
  const RouterConfig config{.num_experts = 5, .top_k = 3};
  EXPECT_EQ(choose(config, {0, 2, 1, 2, -1}).experts, (std::vector<int64_t>{1, 3, 2}));
  EXPECT_EQ(choose(config, {7, 7, 7, 7, 7}).experts, (std::vector<int64_t>{0, 1, 2}));
}

TEST(Router, SoftmaxWeightsAreTheProbabilities) {
  const RouterConfig config{.num_experts = 3, .top_k = 2, .scale = 16};
  const Choice choice = choose(config, {0, 1, 2});
  const double sum = 1 + std::exp(1.0) + std::exp(2.0);
  EXPECT_NEAR(choice.weights[0], 16 * std::exp(2.0) / sum, 1e-5);
  EXPECT_NEAR(choice.weights[1], 16 * std::exp(1.0) / sum, 1e-5);
}

TEST(Router, BiasCountsForTheChoiceOnly) {
  const Choice choice = choose(sigmoid_config(4, 2), {0, 1, 2, 3}, {10, 0, 0, 0});
  EXPECT_EQ(choice.experts, (std::vector<int64_t>{0, 3}));
  const double s0 = 0.5;
  const double s3 = 1 / (1 + std::exp(-3.0));
  EXPECT_NEAR(choice.weights[0], 2.5 * s0 / (s0 + s3), 1e-6);
  EXPECT_NEAR(choice.weights[1], 2.5 * s3 / (s0 + s3), 1e-6);
}

// Group 0 has the largest single score, group 1 the larger sum of two.
TEST(Router, RanksGroupsByTheirTwoBestOrByTheirBest) {
  RouterConfig config = sigmoid_config(6, 1);
  config.num_groups = 2;
  config.group_score = RouterConfig::GroupScore::kSumOfTopTwo;
  const std::vector<float> logits = {3, -4, -4, 2, 2, -4};
  const std::vector<float> bias(6, 0.0F);
  EXPECT_EQ(choose(config, logits, bias).experts, (std::vector<int64_t>{3}));
  config.group_score = RouterConfig::GroupScore::kMax;
  EXPECT_EQ(choose(config, logits, bias).experts, (std::vector<int64_t>{0}));
}

TEST(Router, NeverLeavesTheGroupsItKeptEvenWhenChoicesAreNegative) {
  RouterConfig config = sigmoid_config(4, 2);
  config.num_groups = 2;
  config.group_score = RouterConfig::GroupScore::kSumOfTopTwo;
  const Choice choice = choose(config, {1, 1, 0, 0}, {-5, -5, -6, -6});
  EXPECT_EQ(choice.experts, (std::vector<int64_t>{0, 1}));
}

TEST(Router, GroupsOfOneExpertAreRankedByIt) {
  RouterConfig config = sigmoid_config(4, 2);
  config.num_groups = 4;
  config.num_groups_kept = 2;
  config.group_score = RouterConfig::GroupScore::kSumOfTopTwo;
  EXPECT_EQ(choose(config, {1, 4, 3, 2}, {0, 0, 0, 0}).experts, (std::vector<int64_t>{1, 2}));
}

// A plain sort of all candidates, in double precision.
Choice reference_choose(const RouterConfig& config,
                        const std::vector<float>& logits,
                        const std::vector<float>& bias) {
  const size_t count = logits.size();
  std::vector<double> score(count);
  std::vector<double> choice(count);
  for (size_t e = 0; e < count; ++e) {
    score[e] = 1 / (1 + std::exp(-double{logits[e]}));
    choice[e] = score[e] + bias[e];
  }
  const size_t size = count / static_cast<size_t>(config.num_groups);
  std::vector<std::pair<double, size_t>> groups;
  for (size_t g = 0; g < static_cast<size_t>(config.num_groups); ++g) {
    std::vector<double> members(choice.begin() + static_cast<int64_t>(g * size),
                                choice.begin() + static_cast<int64_t>((g + 1) * size));
    std::ranges::sort(members, std::greater{});
    groups.emplace_back(-(members[0] + members[1]), g);
  }
  std::ranges::sort(groups);
  std::vector<std::pair<double, int64_t>> candidates;
  for (int64_t i = 0; i < config.num_groups_kept; ++i) {
    for (size_t e = 0; e < size; ++e) {
      const size_t expert = groups[static_cast<size_t>(i)].second * size + e;
      candidates.emplace_back(-choice[expert], expert);
    }
  }
  std::ranges::sort(candidates);
  Choice out;
  double sum = 0;
  for (int64_t k = 0; k < config.top_k; ++k) {
    out.experts.push_back(candidates[static_cast<size_t>(k)].second);
    sum += score[static_cast<size_t>(out.experts.back())];
  }
  for (const int64_t expert : out.experts)
    out.weights.push_back(static_cast<float>(score[static_cast<size_t>(expert)] / sum * 2.5));
  return out;
}

TEST(Router, AgreesWithAPlainSortOnRandomLogitsAtEveryLevel) {
  RouterConfig config = sigmoid_config(64, 8);
  config.num_groups = 8;
  config.num_groups_kept = 4;
  config.group_score = RouterConfig::GroupScore::kSumOfTopTwo;
  Random random(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<float> logits(64);
    std::vector<float> bias(64);
    for (size_t e = 0; e < 64; ++e) {
      logits[e] = 4 * random.symmetric();
      bias[e] = random.symmetric();
    }
    const Choice expected = reference_choose(config, logits, bias);
    for (const math::Isa isa : math::supported_isas()) {
      const Choice choice = choose(config, logits, bias, math::kernels(isa));
      EXPECT_EQ(choice.experts, expected.experts) << "round " << round;
      for (size_t k = 0; k < 8; ++k)
        EXPECT_NEAR(choice.weights[k], expected.weights[k], 1e-5) << "round " << round;
    }
  }
}

}  // namespace
}  // namespace wideep::model
