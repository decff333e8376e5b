#include "ep/local_all_to_all.h"

#include "ep/test_group.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace wideep::ep {
namespace {

using math::RowFormat;

LocalAllToAllOptions options_for(const Scenario& scenario) {
  return {.formats = scenario.formats,
          .hidden = scenario.hidden,
          .num_experts = scenario.num_experts,
          .top_k = scenario.top_k,
          .tokens_max = scenario.tokens_max,
          .num_layers = scenario.num_layers};
}

// Takes part in every step, as ranks of a group do whose others have work.
class NeverAsleep final : public LocalAllToAll {
 public:
  using LocalAllToAll::LocalAllToAll;

  Result<StepProgram> begin_step(const StepWish& wish) override {
    WD_ASSIGN_OR_RETURN(StepProgram program, LocalAllToAll::begin_step(wish));
    program.anyone_has_work = true;
    return program;
  }
};

class LocalExchange : public testing::TestWithParam<RowFormats> {};

TEST_P(LocalExchange, GivesTheBitsOfTheJudge) {
  for (const int threads : {1, 3}) {
    ThreadPool pool({.num_threads = threads});
    for (uint64_t seed = 1; seed <= 10; ++seed) {
      const Scenario scenario{.seed = seed,
                              .num_ranks = 1,
                              .num_experts = 6,
                              .top_k = 3,
                              .hidden = 96,
                              .num_steps = 6,
                              .formats = GetParam()};
      const Placement placement = Placement::linear(scenario.num_layers, scenario.num_experts, 1);
      NeverAsleep exchange(pool, math::reference_kernels(), options_for(scenario));
      const auto rows = run_scenario(scenario, exchange, placement, RankId{0});
      ASSERT_TRUE(rows) << rows.error().message;
      EXPECT_TRUE(same_bits(*rows, reference_rows(scenario).front())) << "seed " << seed;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Formats,
    LocalExchange,
    testing::Values(RowFormats{RowFormat::kF32, RowFormat::kF32, RowFormat::kF32},
                    RowFormats{RowFormat::kBf16, RowFormat::kBf16, RowFormat::kBf16},
                    RowFormats{RowFormat::kInt8, RowFormat::kInt8, RowFormat::kBf16},
                    RowFormats{RowFormat::kFp8, RowFormat::kBf16, RowFormat::kF32}));

TEST(LocalExchangeLoad, CountsRowsOfLayersAsAGroupOfOneDoes) {
  const Scenario scenario{.num_experts = 6, .top_k = 3};
  ThreadPool pool({.num_threads = 1});
  LocalAllToAll exchange(pool, math::reference_kernels(), options_for(scenario));
  constexpr int64_t kTokens = 5;
  std::vector<ExpertId> experts;
  std::vector<float> weights;
  scenario_routing(scenario, 1, kTokens, experts, weights);
  const Matrix<float> h(kTokens, scenario.hidden);
  const Routing routing{kTokens, scenario.top_k, experts, weights};
  for (const int32_t layer : {1, 1, 7}) {  // what is beyond num_layers is not counted
    ASSERT_TRUE(exchange.start_dispatch(LayerId{layer}, h.view(), routing));
    ASSERT_TRUE(exchange.next_experts());
  }
  EXPECT_EQ(exchange.load().sent(LayerId{0}, RankId{0}), 0);
  EXPECT_EQ(exchange.load().sent(LayerId{1}, RankId{0}), 2 * kTokens * scenario.top_k);
  for (int32_t e = 0; e < scenario.num_experts; ++e)
    EXPECT_EQ(exchange.load().computed(LayerId{1}, SlotId{e}),
              2 * std::ranges::count(experts, ExpertId{e}));
}

}  // namespace
}  // namespace wideep::ep
