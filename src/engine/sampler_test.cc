#include "engine/sampler.h"

#include "base/random.h"
#include "engine/reference_sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace wideep::engine {
namespace {

const math::Kernels& best_kernels() {
  return math::kernels(math::detect_isa());
}

std::vector<float> random_logits(Random& random, int64_t vocab, float spread) {
  std::vector<float> logits(static_cast<size_t>(vocab));
  for (float& logit : logits)
    logit = random.symmetric() * spread;
  return logits;
}

TokenId token(int32_t id) {
  return TokenId{id};
}

// The token sampled from `logits` without any history.
TokenId pick(std::span<const float> logits, const SamplingParams& params, int64_t position = 0) {
  Sampler sampler(best_kernels(), static_cast<int64_t>(logits.size()));
  const TokenHistory history(params, {});
  const auto chosen = sampler.sample(
      logits, {.params = params, .history = history, .banned = {}, .position = position});
  EXPECT_TRUE(chosen) << chosen.error().message;
  return chosen ? chosen->token : token(-1);
}

// Which tokens ever come out in many draws.
std::map<TokenId, int> histogram(std::span<const float> logits,
                                 SamplingParams params,
                                 int num_draws) {
  std::map<TokenId, int> counts;
  Sampler sampler(best_kernels(), static_cast<int64_t>(logits.size()));
  const TokenHistory history(params, {});
  for (int i = 0; i < num_draws; ++i)
    ++counts[sampler
                 .sample(logits,
                         {.params = params, .history = history, .banned = {}, .position = i})
                 ->token];
  return counts;
}

std::vector<float> logs_of(std::initializer_list<float> probabilities) {
  std::vector<float> logits;
  for (const float p : probabilities)
    logits.push_back(std::log(p));
  return logits;
}

TEST(Sampler, TakesTheLowestOfEqualMaximaWhenGreedy) {
  EXPECT_EQ(pick(std::vector<float>{1, 7, 3, 7}, {.temperature = 0}), token(1));
  EXPECT_EQ(pick(std::vector<float>{1, 7, 3, 7}, {.temperature = 0.9e-5F}), token(1));
}

TEST(Sampler, DrawsByProbability) {
  const auto counts = histogram(logs_of({0.5F, 0.3F, 0.15F, 0.05F}), {}, 40000);
  EXPECT_NEAR(counts.at(token(0)) / 40000.0, 0.50, 0.01);
  EXPECT_NEAR(counts.at(token(1)) / 40000.0, 0.30, 0.01);
  EXPECT_NEAR(counts.at(token(2)) / 40000.0, 0.15, 0.01);
  EXPECT_NEAR(counts.at(token(3)) / 40000.0, 0.05, 0.005);
}

TEST(Sampler, DividesByTheTemperature) {
  const auto counts = histogram(logs_of({0.8F, 0.2F}), {.temperature = 2}, 40000);
  EXPECT_NEAR(counts.at(token(0)) / 40000.0, 2.0 / 3.0, 0.01);  // sqrt(0.8) : sqrt(0.2) = 2 : 1
}

TEST(Sampler, DependsOnSeedAndPositionAlone) {
  const std::vector<float> logits(1000, 1.0F);
  const SamplingParams seven{.seed = 7};
  EXPECT_EQ(pick(logits, seven, 3), pick(logits, seven, 3));
  EXPECT_NE(pick(logits, seven, 3), pick(logits, seven, 4));
  EXPECT_NE(pick(logits, seven, 3), pick(logits, {.seed = 8}, 3));
}

TEST(Sampler, KeepsTheTokenThatCrossesTopP) {
  const auto logits = logs_of({0.1F, 0.4F, 0.2F, 0.3F});
  EXPECT_EQ(histogram(logits, {.top_p = 0.39F}, 500).size(), 1U);
  EXPECT_EQ(histogram(logits, {.top_p = 0.41F}, 500).size(), 2U);
  EXPECT_EQ(histogram(logits, {.top_p = 0.69F}, 500).size(), 2U);
  EXPECT_EQ(histogram(logits, {.top_p = 0.71F}, 500).size(), 3U);
  EXPECT_EQ(histogram(logits, {.top_p = 1e-30F}, 500).size(), 1U);
}

TEST(Sampler, MeasuresTopPOverWhatTopKLeft) {
  const auto logits = logs_of({0.1F, 0.4F, 0.2F, 0.3F});
  // Of the two left the first has 0.4 / 0.7 = 0.57.
  EXPECT_EQ(histogram(logits, {.top_p = 0.55F, .top_k = 2}, 500).size(), 1U);
  EXPECT_EQ(histogram(logits, {.top_p = 0.60F, .top_k = 2}, 500).size(), 2U);
}

TEST(Sampler, KeepsTiesWithTheKth) {
  const std::vector<float> logits{1, 3, 2, 3, 2, 2};
  EXPECT_EQ(histogram(logits, {.top_k = 1}, 500).size(), 2U);
  EXPECT_EQ(histogram(logits, {.top_k = 3}, 1000).size(), 5U);
  EXPECT_EQ(histogram(logits, {.top_k = -1}, 2000).size(), 6U);
  EXPECT_EQ(histogram(logits, {.top_k = 100}, 2000).size(), 6U);
}

TEST(Sampler, KeepsWhatHasMinPOfTheBest) {
  const auto logits = logs_of({0.5F, 0.26F, 0.24F});
  EXPECT_EQ(histogram(logits, {.min_p = 0.5F}, 500).size(), 2U);
  EXPECT_EQ(histogram(logits, {.min_p = 0.4F}, 500).size(), 3U);
  EXPECT_EQ(histogram(logits, {.min_p = 1.0F}, 500).size(), 1U);
}

TEST(Sampler, AppliesBiasBansAndAllowedTokens) {
  const std::vector<float> logits{0, 5, 4, 3};
  EXPECT_EQ(pick(logits, {.temperature = 0, .logit_bias = {{token(3), 10.0F}}}), token(3));
  EXPECT_EQ(pick(logits, {.temperature = 0, .allowed_tokens = {token(0), token(3)}}), token(3));
  SamplingParams greedy{.temperature = 0, .logit_bias = {{token(1), 100.0F}}};
  Sampler sampler(best_kernels(), 4);
  const TokenHistory history(greedy, {});
  const std::vector banned{token(1)};
  EXPECT_EQ(sampler.sample(logits, {.params = greedy, .history = history, .banned = banned})->token,
            token(2));
}

TEST(Sampler, PenalisesPromptAndOutputAsTheyShouldBe) {
  const std::vector<float> logits{4, 6, -2, 3};
  SamplingParams params{.temperature = 0, .repetition_penalty = 2, .logprobs = 0};
  const std::vector prompt{token(1), token(2)};
  TokenHistory history(params, prompt);
  Sampler sampler(best_kernels(), 4);
  const auto next = [&] {
    return sampler.sample(logits, {.params = params, .history = history, .banned = {}})->token;
  };
  EXPECT_EQ(next(), token(0));  // 4 against 6 / 2
  history.append(token(0));
  EXPECT_EQ(next(), token(1));  // 4 / 2, 3, 3: the lower index

  params = {.temperature = 0, .frequency_penalty = 1, .presence_penalty = 0.5F};
  TokenHistory output_only(params, prompt);
  const auto next_output = [&] {
    return sampler.sample(logits, {.params = params, .history = output_only, .banned = {}})->token;
  };
  EXPECT_EQ(next_output(), token(1));  // the prompt does not count
  output_only.append(token(1));
  EXPECT_EQ(next_output(), token(1));  // 6 - 1.5 against 4
  output_only.append(token(1));
  EXPECT_EQ(next_output(), token(0));  // 6 - 2.5
}

TEST(Sampler, ReportsLogprobsOfTheRawLogits) {
  const auto logits = logs_of({0.1F, 0.4F, 0.2F, 0.3F});
  const SamplingParams params{.temperature = 0, .logit_bias = {{token(0), 50.0F}}, .logprobs = 2};
  Sampler sampler(best_kernels(), 4);
  const TokenHistory history(params, {});
  const auto chosen = sampler.sample(logits, {.params = params, .history = history, .banned = {}});
  ASSERT_TRUE(chosen);
  EXPECT_EQ(chosen->token, token(0));
  EXPECT_NEAR(chosen->logprob, std::log(0.1F), 1e-6);
  ASSERT_EQ(chosen->top.size(), 2U);
  EXPECT_EQ(chosen->top[0].token, token(1));
  EXPECT_NEAR(chosen->top[0].logprob, std::log(0.4F), 1e-6);
  EXPECT_EQ(chosen->top[1].token, token(3));
}

TEST(Sampler, OrdersEqualLogprobsByToken) {
  const std::vector<float> logits{1, 2, 2, 0, 2, 1};
  const SamplingParams params{.temperature = 0, .logprobs = 4};
  Sampler sampler(best_kernels(), 6);
  const TokenHistory history(params, {});
  const auto chosen = sampler.sample(logits, {.params = params, .history = history, .banned = {}});
  std::vector<int32_t> order;
  for (const TokenLogprob& entry : chosen->top)
    order.push_back(index(entry.token));
  EXPECT_EQ(order, (std::vector{1, 2, 4, 0}));
}

TEST(Sampler, SaysNumericsForALogitThatIsNoNumber) {
  Sampler sampler(best_kernels(), 3);
  const SamplingParams params;
  const TokenHistory history(params, {});
  const SampleInput input{.params = params, .history = history, .banned = {}};
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    const auto chosen = sampler.sample(std::vector<float>{1, bad, 2}, input);
    ASSERT_FALSE(chosen);
    EXPECT_EQ(chosen.error().code, ErrorCode::kDataLoss);
    EXPECT_NE(chosen.error().message.find("numerics"), std::string::npos);
  }
  const SamplingParams cold{.temperature = 1e-5F};
  EXPECT_FALSE(sampler.sample(std::vector<float>{1, 3e38F, 2},
                              {.params = cold, .history = history, .banned = {}}));
}

TEST(Sampler, FailsWhenNoTokenIsLeft) {
  Sampler sampler(best_kernels(), 2);
  const SamplingParams params{.allowed_tokens = {token(1)}};
  const TokenHistory history(params, {});
  const std::vector banned{token(1)};
  EXPECT_FALSE(sampler.sample(std::vector<float>{1, 2},
                              {.params = params, .history = history, .banned = banned}));
}

TEST(Sampler, RefusesParametersOutOfTheirRange) {
  EXPECT_TRUE(check_sampling({}, 10));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const SamplingParams bad[] = {
      {.temperature = -1},
      {.temperature = nan},
      {.top_p = 0},
      {.top_p = 1.5F},
      {.top_k = -2},
      {.min_p = -0.1F},
      {.repetition_penalty = 0},
      {.frequency_penalty = 2.1F},
      {.presence_penalty = -2.1F},
      {.logit_bias = {{token(10), 1.0F}}},
      {.logit_bias = {{token(1), 101.0F}}},
      {.allowed_tokens = {token(-1)}},
      {.logprobs = -1},
      {.logprobs = kLogprobsMax + 1},
  };
  for (const SamplingParams& params : bad) {
    const Status checked = check_sampling(params, 10);
    ASSERT_FALSE(checked);
    EXPECT_EQ(checked.error().code, ErrorCode::kInvalidArgument);
  }
}

SamplingParams random_params(Random& random, int64_t vocab) {
  const auto any_token = [&] { return token(static_cast<int32_t>(random.below(vocab))); };
  SamplingParams params;
  constexpr float kTemperatures[] = {0, 1e-4F, 0.1F, 0.6F, 1, 3};
  params.temperature = kTemperatures[random.below(6)];
  if (random.below(2) == 0) params.top_p = static_cast<float>(1 - random.uniform());
  if (random.below(2) == 0) params.top_k = static_cast<int32_t>(random.below(vocab + 2));
  if (random.below(3) == 0) params.min_p = static_cast<float>(random.uniform());
  if (random.below(3) == 0) params.repetition_penalty = 0.5F + static_cast<float>(random.uniform());
  if (random.below(3) == 0) params.frequency_penalty = random.symmetric() * 2;
  if (random.below(3) == 0) params.presence_penalty = random.symmetric() * 2;
  while (random.below(3) == 0)
    params.logit_bias.emplace_back(any_token(), random.symmetric() * 20);
  if (random.below(5) == 0)
    for (int i = 0; i < 5; ++i)
      params.allowed_tokens.push_back(any_token());
  params.seed = static_cast<int64_t>(random.bits());
  return params;
}

TEST(Sampler, AgreesWithItsReferenceTwinAtEveryIsaLevel) {
  for (const math::Isa isa : math::supported_isas()) {
    const math::Kernels& kernels = math::kernels(isa);
    for (uint64_t seed = 0; seed < 1500; ++seed) {
      SCOPED_TRACE(testing::Message() << math::name(isa) << " seed " << seed);
      Random random(seed);
      const auto vocab = static_cast<int64_t>(1 + random.below(random.below(8) == 0 ? 6000 : 400));
      std::vector<float> logits = random_logits(random, vocab, random.below(2) == 0 ? 3.0F : 40.0F);
      if (random.below(3) == 0)
        for (float& logit : logits)
          logit = std::round(logit);  // ties
      const SamplingParams params = random_params(random, vocab);
      std::vector<TokenId> prompt;
      for (int i = 0; i < 5; ++i)
        prompt.push_back(token(static_cast<int32_t>(random.below(vocab))));
      TokenHistory history(params, prompt);
      for (int i = 0; i < 5; ++i)
        history.append(token(static_cast<int32_t>(random.below(vocab))));
      std::vector<TokenId> banned;
      if (random.below(4) == 0) banned.push_back(token(static_cast<int32_t>(random.below(vocab))));

      const SampleInput input{.params = params,
                              .history = history,
                              .banned = banned,
                              .position = static_cast<int64_t>(random.below(1000))};
      Sampler sampler(kernels, vocab);
      const auto fast = sampler.sample(logits, input);
      const auto slow = reference_sample(kernels, logits, input);
      ASSERT_EQ(fast.has_value(), slow.has_value());
      if (fast) {
        ASSERT_EQ(fast->token, *slow);
      }
    }
  }
}

// The distribution as the definition says it, in double precision with libm.
std::vector<double> distribution(std::span<const float> logits, const SamplingParams& params) {
  std::vector<double> p(logits.size());
  double sum = 0;
  const double max = std::ranges::max(logits);
  for (size_t i = 0; i < p.size(); ++i)
    sum += p[i] = std::exp((logits[i] - max) / params.temperature);
  std::vector<double> sorted = p;
  std::ranges::sort(sorted, std::greater());
  double least = params.min_p * sorted[0];
  if (params.top_k > 0 && params.top_k < static_cast<int32_t>(p.size()))
    least = std::max(least, sorted[params.top_k - 1]);
  const auto total = [&] {
    double kept = 0;
    for (const double value : p)
      kept += value >= least ? value : 0;
    return kept;
  };
  double reached = 0;
  const double wanted = params.top_p * total();
  for (const double value : sorted) {
    if (value < least) break;
    reached += value;
    if (reached >= wanted) {
      least = value;
      break;
    }
  }
  sum = total();
  for (double& value : p)
    value = value >= least ? value / sum : 0;
  return p;
}

TEST(Sampler, DrawsFromTheDistributionThatTheDefinitionGives) {
  constexpr int kDraws = 20000;
  const SamplingParams cases[] = {
      {.temperature = 0.6F, .top_p = 0.95F},
      {.temperature = 0.6F, .top_p = 0.95F, .top_k = 20},
      {.temperature = 1.3F, .top_k = 10, .min_p = 0.1F},
      {.temperature = 1.0F, .top_p = 0.5F, .top_k = 30, .min_p = 0.01F},
  };
  uint64_t seed = 1;
  for (SamplingParams params : cases) {
    Random random(seed++);
    const std::vector<float> logits = random_logits(random, 60, 4);
    params.seed = static_cast<int64_t>(seed);
    const std::vector<double> expected = distribution(logits, params);
    const auto counts = histogram(logits, params, kDraws);
    double chi_squared = 0;
    int num_possible = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      const auto found = counts.find(token(static_cast<int32_t>(i)));
      const double seen = found == counts.end() ? 0 : found->second;
      if (expected[i] == 0) {
        EXPECT_EQ(seen, 0) << i;
        continue;
      }
      ++num_possible;
      const double wanted = expected[i] * kDraws;
      chi_squared += (seen - wanted) * (seen - wanted) / wanted;
    }
    // Mean n - 1, deviation sqrt(2 (n - 1)): five deviations, with fixed seeds.
    EXPECT_LT(chi_squared, num_possible - 1 + 5 * std::sqrt(2.0 * num_possible));
  }
}

}  // namespace
}  // namespace wideep::engine
