#include "fabric/fabric.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace wideep::fabric {
namespace {

Shape shape_of(std::vector<int> nodes) {
  Shape shape{.arena_bytes = 4096, .num_channels = 1};
  for (const int node : nodes)
    shape.node_of.push_back(NodeId{node});
  return shape;
}

TEST(Shape, RefusesWhatIsBeyondTheLimits) {
  EXPECT_FALSE(validate(shape_of({})).has_value());
  EXPECT_FALSE(validate(shape_of(std::vector<int>(kRanksMax + 1, 0))).has_value());
  Shape shape = shape_of({0});
  shape.num_channels = kChannelsMax + 1;
  EXPECT_FALSE(validate(shape).has_value());
  shape = shape_of({0});
  shape.arena_bytes = kArenaBytesMax + 1;
  EXPECT_FALSE(validate(shape).has_value());
  shape = shape_of({0});
  shape.epoch = 0;
  EXPECT_FALSE(validate(shape).has_value());
  EXPECT_TRUE(validate(shape_of({0})).has_value());
}

TEST(Shape, ListsNodesByTheirLowestRank) {
  const auto nodes = shape_of({5, 3, 5, 3, 9}).ranks_by_node();
  ASSERT_EQ(nodes.size(), 3U);
  EXPECT_THAT(nodes[0], testing::ElementsAre(RankId{0}, RankId{2}));
  EXPECT_THAT(nodes[1], testing::ElementsAre(RankId{1}, RankId{3}));
  EXPECT_THAT(nodes[2], testing::ElementsAre(RankId{4}));
}

}  // namespace
}  // namespace wideep::fabric
