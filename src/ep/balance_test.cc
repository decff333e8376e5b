#include "ep/balance.h"

#include "base/random.h"
#include "ep/test_placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace wideep::ep {
namespace {

// The published example: 12 experts in 4 groups, 16 slots on 8 ranks of 2 nodes.
TEST(Balance, ReproducesThePublishedExample) {
  const std::vector<double> first = {90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86};
  const std::vector<double> second = {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27};
  BalanceRequest request{
      .load = first, .num_ranks = 8, .num_nodes = 2, .num_groups = 4, .num_slots = 16};
  const auto placed = balance(request);
  ASSERT_TRUE(placed.has_value()) << placed.error().message;
  EXPECT_THAT(experts(*placed),
              testing::ElementsAre(5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1));
  request.load = second;
  EXPECT_THAT(experts(*balance(request)),
              testing::ElementsAre(7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1));
}

TEST(Balance, NeverPutsAnExpertTwiceOnARankWhereThatCanBeAvoided) {
  Random random(11);
  for (int round = 0; round < 200; ++round) {
    const int32_t num_experts = 4 + static_cast<int32_t>(random.below(29));
    const int32_t num_ranks = 1 + static_cast<int32_t>(random.below(8));
    std::vector<double> load;
    for (int32_t e = 0; e < num_experts; ++e)
      load.push_back(random.uniform() < 0.2 ? 1000 * random.uniform() : random.uniform());
    const int32_t slots_per_rank =
        (num_experts + num_ranks - 1) / num_ranks + static_cast<int32_t>(random.below(3));
    const auto placed =
        balance({.load = load, .num_ranks = num_ranks, .num_slots = slots_per_rank * num_ranks});
    ASSERT_TRUE(placed.has_value()) << placed.error().message;
    // With at most one replica per rank of every expert there must be no twins.
    for (int32_t e = 0; e < num_experts; ++e) {
      const auto replicas = placed->replicas(ExpertId{e});
      if (std::ssize(replicas) > num_ranks) continue;
      std::set<RankId> ranks;
      for (const SlotAddress& address : replicas)
        ranks.insert(address.rank);
      EXPECT_EQ(ranks.size(), replicas.size()) << "round " << round << " expert " << e;
    }
  }
}

TEST(Balance, RefusesShapesThatDoNotDivideAndLoadsThatAreNoNumbers) {
  const std::vector<double> load = {1, 2, 3, 4};
  EXPECT_FALSE(balance({.load = load, .num_ranks = 3, .num_slots = 4}).has_value());
  EXPECT_FALSE(balance({.load = load, .num_ranks = 1, .num_slots = 3}).has_value());
  EXPECT_FALSE(balance({.load = load, .num_ranks = 4, .num_nodes = 3, .num_slots = 4}).has_value());
  EXPECT_FALSE(balance({.load = load, .num_groups = 3, .num_slots = 4}).has_value());
  EXPECT_FALSE(balance({.load = {}, .num_slots = 4}).has_value());
  const std::vector<double> bad = {1, -2};
  EXPECT_FALSE(balance({.load = bad, .num_slots = 2}).has_value());
}

}  // namespace
}  // namespace wideep::ep
