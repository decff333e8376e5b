#include "kv/lease_table.h"

#include "base/test_clock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::kv {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class LeaseTableTest : public ::testing::Test {
 protected:
  LeaseId grant(int32_t num_blocks = 1) { return *leases_.grant(lease(num_blocks)); }

  static Lease lease(int32_t num_blocks) {
    Lease lease{.num_tokens = num_blocks};
    for (int32_t i = 0; i < num_blocks; ++i)
      lease.blocks.push_back({BlockId{i}, 1});
    return lease;
  }

  TestClock clock_;
  std::vector<LeaseId> ended_;
  LeaseTable leases_{clock_,
                     {.duration = seconds(30), .leases_max = 3, .blocks_max = 10},
                     [this](LeaseId id) { ended_.push_back(id); }};
};

TEST_F(LeaseTableTest, EndsALeaseOnceWhenItIsReleased) {
  const LeaseId id = grant(4);
  EXPECT_EQ(leases_.stats().num_blocks, 4);
  leases_.release(id);
  leases_.release(id);
  EXPECT_THAT(ended_, ElementsAre(id));
  EXPECT_EQ(leases_.stats().num_live, 0);
  EXPECT_EQ(leases_.stats().num_blocks, 0);
  EXPECT_FALSE(leases_.pin(id));
}

TEST_F(LeaseTableTest, ExpiresALeaseThatNobodyWants) {
  const LeaseId old = grant();
  clock_.advance(seconds(10));
  const LeaseId young = grant();
  clock_.advance(seconds(19));
  EXPECT_EQ(leases_.expire(), seconds(1));  // when the old one is due
  EXPECT_THAT(ended_, IsEmpty());
  clock_.advance(seconds(1));
  leases_.expire();
  EXPECT_THAT(ended_, ElementsAre(old));
  EXPECT_EQ(leases_.stats().num_expired, 1);
  EXPECT_TRUE(leases_.pin(young));
}

TEST_F(LeaseTableTest, AHeartbeatExtendsALeaseByTwoThirdsFromNowOn) {
  const LeaseId id = grant();
  clock_.advance(seconds(5));
  leases_.extend(id);  // 20 s from now is earlier than its deadline
  clock_.advance(seconds(24));
  leases_.expire();
  EXPECT_THAT(ended_, IsEmpty());
  leases_.extend(id);
  clock_.advance(seconds(19));
  leases_.expire();
  EXPECT_THAT(ended_, IsEmpty());
  clock_.advance(seconds(1));
  leases_.expire();
  EXPECT_THAT(ended_, ElementsAre(id));
  leases_.extend(id);
  EXPECT_EQ(leases_.stats().num_live, 0);
}

TEST_F(LeaseTableTest, APinnedLeaseOutlivesItsReleaseAndItsDeadline) {
  const LeaseId released = grant();
  const LeaseId expired = grant();
  {
    const auto first = leases_.pin(released);
    const auto second = leases_.pin(released);
    const auto third = leases_.pin(expired);
    EXPECT_EQ(first->lease().num_tokens, 1);
    leases_.release(released);
    EXPECT_FALSE(leases_.pin(released)) << "nobody new";
    clock_.advance(seconds(60));
    leases_.expire();
    EXPECT_THAT(ended_, IsEmpty());
  }
  EXPECT_THAT(ended_, ElementsAre(released));
  leases_.expire();
  EXPECT_THAT(ended_, ElementsAre(released, expired));
}

TEST_F(LeaseTableTest, RefusesMoreThanItsLimits) {
  grant(6);
  EXPECT_EQ(leases_.grant(lease(5)).error().code, ErrorCode::kExhausted);
  grant(2);
  grant(2);
  EXPECT_EQ(leases_.grant(lease(0)).error().code, ErrorCode::kExhausted);
  EXPECT_EQ(leases_.stats().num_refused, 2);
  EXPECT_EQ(leases_.stats().num_granted, 3);
}

}  // namespace
}  // namespace wideep::kv
