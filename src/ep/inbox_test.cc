#include "ep/inbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::ep {
namespace {

Arrival token(uint32_t number) {
  return {.token = number};
}

std::vector<uint32_t> tokens(const Inbox::Group& group) {
  std::vector<uint32_t> all;
  for (const Arrival& arrival : group.arrivals)
    all.push_back(arrival.token);
  return all;
}

TEST(Inbox, GivesRowsBySlotInOrderOfArrival) {
  Inbox inbox(3, 8, 8);
  inbox.add(SlotId{2}, token(10));
  inbox.add(SlotId{0}, token(11));
  inbox.add(SlotId{2}, token(12));
  const auto groups = inbox.take(1);
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_EQ(groups[0].slot, SlotId{0});
  EXPECT_THAT(tokens(groups[0]), testing::ElementsAre(11));
  EXPECT_EQ(groups[1].slot, SlotId{2});
  EXPECT_THAT(tokens(groups[1]), testing::ElementsAre(10, 12));
  EXPECT_EQ(inbox.num_waiting(), 0);
  EXPECT_TRUE(inbox.take(1).empty());
}

TEST(Inbox, LeavesSlotsWithFewerRowsThanAskedFor) {
  Inbox inbox(2, 8, 8);
  inbox.add(SlotId{0}, token(1));
  inbox.add(SlotId{1}, token(2));
  inbox.add(SlotId{1}, token(3));
  const auto groups = inbox.take(2);
  ASSERT_EQ(groups.size(), 1U);
  EXPECT_THAT(tokens(groups[0]), testing::ElementsAre(2, 3));
  EXPECT_EQ(inbox.num_waiting(SlotId{0}), 1);
}

TEST(Inbox, ASlotGoesWholeUnlessItAloneIsTooMuchForOneTake) {
  Inbox inbox(2, 8, 3);
  for (uint32_t i = 0; i < 2; ++i)
    inbox.add(SlotId{0}, token(i));
  for (uint32_t i = 2; i < 7; ++i)
    inbox.add(SlotId{1}, token(i));
  EXPECT_THAT(tokens(inbox.take(1)[0]), testing::ElementsAre(0, 1));
  EXPECT_THAT(tokens(inbox.take(1)[0]), testing::ElementsAre(2, 3, 4));
  inbox.add(SlotId{1}, token(7));
  EXPECT_THAT(tokens(inbox.take(1)[0]), testing::ElementsAre(5, 6, 7));
  EXPECT_EQ(inbox.num_waiting(), 0);
}

TEST(Inbox, TakesRowsAgainAfterASlotWasEmptied) {
  Inbox inbox(1, 4, 4);
  inbox.add(SlotId{0}, token(1));
  EXPECT_EQ(inbox.take(1).size(), 1U);
  inbox.add(SlotId{0}, token(2));
  EXPECT_THAT(tokens(inbox.take(1)[0]), testing::ElementsAre(2));
  inbox.clear();
  for (uint32_t i = 0; i < 4; ++i)
    inbox.add(SlotId{0}, token(i));
  EXPECT_EQ(inbox.num_waiting(), 4);
}

TEST(InboxDeathTest, StopsOnMoreRowsThanItHasRoomFor) {
  Inbox inbox(1, 1, 1);
  inbox.add(SlotId{0}, token(1));
  EXPECT_DEATH(inbox.add(SlotId{0}, token(2)), "arrivals_max_");
}

}  // namespace
}  // namespace wideep::ep
