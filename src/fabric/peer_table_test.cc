#include "fabric/peer_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace wideep::fabric {
namespace {

std::optional<RankId> cause(const PeerTable& table, std::vector<RankId> missing) {
  return table.cause_of_failure([&] { return missing; });
}

TEST(PeerTable, ALostRankEndsEveryWaitAndTheFirstIsNamed) {
  PeerTable table(4);
  EXPECT_FALSE(cause(table, {RankId{1}}).has_value());
  table.set_lost(RankId{3}, "connection closed");
  table.set_lost(RankId{3}, "no heartbeat");
  table.set_lost(RankId{2}, "no heartbeat");
  EXPECT_EQ(cause(table, {RankId{1}}), RankId{3});
  EXPECT_EQ(table.reason(RankId{3}), "connection closed");
  EXPECT_EQ(table.num_gone(), 2);
}

TEST(PeerTable, ARankThatLeftEndsOnlyWaitsForIt) {
  PeerTable table(4);
  table.set_left(RankId{3});
  EXPECT_FALSE(cause(table, {RankId{1}}).has_value());
  EXPECT_EQ(cause(table, {RankId{1}, RankId{3}}), RankId{3});
  table.set_lost(RankId{3}, "connection closed");
  EXPECT_EQ(table.life(RankId{3}), PeerState::Life::kLeft);
  EXPECT_EQ(table.num_gone(), 1);
}

}  // namespace
}  // namespace wideep::fabric
