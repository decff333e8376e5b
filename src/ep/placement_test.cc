#include "ep/placement.h"

#include "ep/test_placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::ep {
namespace {

TEST(LayerPlacement, LinearGivesTheFirstRanksOneMoreWhereItDoesNotComeOutEven) {
  const LayerPlacement placement = LayerPlacement::linear(8, 3);
  EXPECT_EQ(placement.slots_per_rank(), 3);
  EXPECT_THAT(experts(placement), testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, -1));
  const SlotAddress home = placement.replicas(ExpertId{4}).front();
  EXPECT_EQ(home, (SlotAddress{RankId{1}, SlotId{1}}));
  EXPECT_EQ(placement.expert_at(home), ExpertId{4});
  EXPECT_THAT(placement.experts_of(RankId{2}), testing::ElementsAre(ExpertId{6}, ExpertId{7}));
}

TEST(LayerPlacement, LinearPlacesFewerExpertsThanRanks) {
  EXPECT_THAT(experts(LayerPlacement::linear(2, 3)), testing::ElementsAre(0, 1, -1));
}

TEST(LayerPlacement, RefusesAnExpertWithoutASlotAndSlotsThatDoNotDivide) {
  EXPECT_FALSE(LayerPlacement::create(2, 1, {ExpertId{0}, ExpertId{0}}).has_value());
  EXPECT_FALSE(LayerPlacement::create(2, 1, {ExpertId{0}, ExpertId{2}}).has_value());
  EXPECT_FALSE(LayerPlacement::create(1, 2, {ExpertId{0}, ExpertId{0}, ExpertId{0}}).has_value());
  EXPECT_FALSE(LayerPlacement::create(kExpertsMax + 1, 1, {ExpertId{0}}).has_value());
  EXPECT_FALSE(
      LayerPlacement::create(1, 1, std::vector<ExpertId>(static_cast<size_t>(kSlotsPerRankMax) + 1))
          .has_value());
}

// Whoever holds experts numbers them by slot.
TEST(LayerPlacement, RefusesAnEmptySlotBeforeAFilledOne) {
  constexpr ExpertId kA{0};
  EXPECT_TRUE(LayerPlacement::create(1, 2, {kA, kNoExpert, kNoExpert, kNoExpert}).has_value());
  EXPECT_FALSE(LayerPlacement::create(1, 2, {kA, kNoExpert, kNoExpert, kA}).has_value());
}

TEST(Placement, HashTellsPlacementsApart) {
  EXPECT_EQ(Placement::linear(2, 8, 2).hash(), Placement::linear(2, 8, 2).hash());
  EXPECT_NE(Placement::linear(2, 8, 2).hash(), Placement::linear(2, 8, 4).hash());
  EXPECT_NE(Placement::linear(2, 8, 2).hash(), Placement::linear(3, 8, 2).hash());
}

}  // namespace
}  // namespace wideep::ep
