#include "cmd/group_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::cmd {
namespace {

using testing::HasSubstr;

GroupPlan plan_of(const GroupFlags& flags, const std::optional<LwsEnvironment>& lws = {}) {
  const Result<GroupPlan> plan = flags.resolve(lws);
  EXPECT_TRUE(plan) << plan.error().message;
  return plan.value_or(GroupPlan{});
}

TEST(GroupFlags, MeanOneRankByItselfByDefault) {
  const GroupPlan plan = plan_of({});
  EXPECT_EQ(plan.num_ranks, 1);
  EXPECT_EQ(plan.rank, 0);
  EXPECT_FALSE(plan.is_group());
}

TEST(GroupFlags, StartAllRanksHereWhenOnlyTheirNumberIsGiven) {
  const GroupPlan plan = plan_of({.size = 4, .expert_parallel = true});
  EXPECT_EQ(plan.num_local, 4);
  EXPECT_FALSE(plan.rank);
  EXPECT_TRUE(plan.is_group());
  EXPECT_TRUE(plan.is_on_one_host());
  EXPECT_EQ(plan.leader.to_string(), "127.0.0.1:29550");
}

TEST(GroupFlags, PlaceTheRanksOfASecondHost) {
  const GroupPlan plan = plan_of({.size = 5,
                                  .size_local = 2,
                                  .start_rank = 3,
                                  .address = "10.0.0.1",
                                  .rpc_port = 5555,
                                  .expert_parallel = true});
  EXPECT_EQ(plan.first_local, 3);
  EXPECT_EQ(plan.num_local, 2);
  EXPECT_FALSE(plan.rank);
  EXPECT_FALSE(plan.is_on_one_host());
  EXPECT_EQ(plan.leader.to_string(), "10.0.0.1:5555");
}

TEST(GroupFlags, TakeOneRankOfAHostForThatRank) {
  const GroupPlan plan = plan_of({.size = 2, .size_local = 1, .start_rank = 1, .address = "h"});
  EXPECT_EQ(plan.rank, 1);
}

TEST(GroupFlags, TakeExternalBalancingForOneRankThatIsNamed) {
  EXPECT_EQ(plan_of({.size = 2, .rank = 1, .external_lb = true}).rank, 1);
  const LwsEnvironment pod{.leader_address = "p-0.p.ns", .group_size = 2, .worker_index = 1};
  EXPECT_EQ(plan_of({.external_lb = true}, pod).rank, 1);
  EXPECT_THAT(GroupFlags({.size = 2, .external_lb = true}).resolve({}).error().message,
              HasSubstr("Give --data-parallel-rank"));
  EXPECT_THAT(GroupFlags({.size = 2, .rank = 1, .hybrid_lb = true, .external_lb = true})
                  .resolve({})
                  .error()
                  .message,
              HasSubstr("say otherwise"));
}

TEST(GroupFlags, GiveTheFirstHostADoorForAllRanksUnlessEachHasItsOwn) {
  const GroupPlan head = plan_of({.size = 4, .size_local = 2, .address = "10.0.0.1"});
  EXPECT_EQ(head.door, Door::kAllRanks);
  EXPECT_EQ(head.meeting_of_doors.to_string(), "10.0.0.1:29551");
  // Also where it has one rank itself: then its process is no rank.
  const GroupPlan one = plan_of({.size = 2, .size_local = 1, .address = "unix:/tmp/x"});
  EXPECT_EQ(one.door, Door::kAllRanks);
  EXPECT_FALSE(one.rank);
  EXPECT_EQ(one.meeting_of_doors.to_string(), "unix:/tmp/x.door");

  const GroupPlan hybrid =
      plan_of({.size = 4, .size_local = 2, .address = "10.0.0.1", .hybrid_lb = true});
  EXPECT_EQ(hybrid.door, Door::kOwnRanks);
  EXPECT_EQ(plan_of({.size = 2, .size_local = 1, .address = "h", .hybrid_lb = true}).rank, 0);
  EXPECT_EQ(plan_of({.size = 2, .size_local = 1, .start_rank = 0, .address = "h"}).rank, 0);
  EXPECT_EQ(plan_of({.size = 4}).door, Door::kOwnRanks);
}

TEST(GroupFlags, GiveAHeadlessHostNone) {
  const GroupPlan plan = plan_of(
      {.size = 3, .size_local = 1, .start_rank = 2, .address = "10.0.0.1", .headless = true});
  EXPECT_EQ(plan.door, Door::kElsewhere);
  EXPECT_EQ(plan.first_local, 2);
  EXPECT_FALSE(plan.rank);
  EXPECT_EQ(plan.meeting_of_doors.to_string(), "10.0.0.1:29551");
}

TEST(GroupFlags, GiveEachRankOfAHostADoorOfItsOwn) {
  const GroupPlan all = plan_of({.size = 4, .multi_port_lb = true});
  EXPECT_EQ(all.door, Door::kEachRank);
  EXPECT_FALSE(all.rank);
  // On each of several hosts, the first or not; also where a host, or a pod, has one rank.
  for (const int64_t start : {0, 2})
    EXPECT_EQ(plan_of({.size = 4,
                       .size_local = 2,
                       .start_rank = start,
                       .address = "10.0.0.1",
                       .multi_port_lb = true})
                  .door,
              Door::kEachRank);
  const LwsEnvironment lws{.leader_address = "m-0.m.ns", .group_size = 3, .worker_index = 1};
  const GroupPlan pod = plan_of({.multi_port_lb = true}, lws);
  EXPECT_EQ(pod.door, Door::kEachRank);
  EXPECT_EQ(pod.first_local, 1);
  EXPECT_FALSE(pod.rank);
}

TEST(GroupFlags, CountRanksThatMeetOnThisHostAsItsOwn) {
  EXPECT_EQ(plan_of({.size = 3, .rank = 2}).num_local, 3);
  EXPECT_EQ(plan_of({.size = 3, .rank = 2, .address = "unix:/tmp/x"}).num_local, 3);
  const GroupPlan elsewhere = plan_of({.size = 3, .rank = 2, .address = "10.0.0.1"});
  EXPECT_EQ(elsewhere.num_local, 1);
  EXPECT_EQ(elsewhere.first_local, 2);
  // Two a host: the last has one.
  const GroupPlan last = plan_of({.size = 5, .size_local = 2, .rank = 4, .address = "10.0.0.1"});
  EXPECT_EQ(last.num_local, 1);
  EXPECT_EQ(last.first_local, 4);
}

TEST(GroupFlags, TakeTheirDefaultsFromLeaderWorkerSet) {
  const LwsEnvironment lws{.leader_address = "m-0.m.ns", .group_size = 3, .worker_index = 1};
  const GroupPlan pods = plan_of({.expert_parallel = true}, lws);
  EXPECT_EQ(pods.num_ranks, 3);
  EXPECT_EQ(pods.rank, 1);  // one a pod
  EXPECT_EQ(pods.leader.host, "m-0.m.ns");

  const GroupPlan two = plan_of({.size_local = 2}, lws);  // two ranks in each pod
  EXPECT_EQ(two.num_ranks, 6);
  EXPECT_EQ(two.first_local, 2);
  EXPECT_FALSE(two.rank);

  const GroupPlan shared = plan_of({.size = 12}, lws);  // an even share
  EXPECT_EQ(shared.num_local, 4);
  EXPECT_EQ(shared.first_local, 4);

  const GroupPlan flags =
      plan_of({.size = 8, .size_local = 4, .start_rank = 0, .address = "x"}, lws);
  EXPECT_EQ(flags.num_ranks, 8);
  EXPECT_EQ(flags.first_local, 0);
  EXPECT_EQ(flags.leader.host, "x");
}

TEST(GroupFlags, GivePodsOfOneRankOneDoorIfTheirSizeIsGiven) {
  const LwsEnvironment leader{.leader_address = "m-0.m.ns", .group_size = 3, .worker_index = 0};
  LwsEnvironment worker = leader;
  worker.worker_index = 2;
  const GroupPlan head = plan_of({.size_local = 1}, leader);
  EXPECT_EQ(head.door, Door::kAllRanks);
  EXPECT_FALSE(head.rank);
  EXPECT_EQ(head.meeting_of_doors.to_string(), "m-0.m.ns:29551");
  const GroupPlan other = plan_of({.size_local = 1, .headless = true}, worker);
  EXPECT_EQ(other.door, Door::kElsewhere);
  EXPECT_EQ(other.first_local, 2);
  EXPECT_EQ(other.num_local, 1);
  EXPECT_EQ(other.meeting_of_doors, head.meeting_of_doors);
  // Without it, or told where to start, a pod is its rank.
  EXPECT_EQ(plan_of({}, leader).rank, 0);
  EXPECT_EQ(plan_of({.size_local = 1, .start_rank = 0}, leader).rank, 0);
  EXPECT_EQ(plan_of({.size_local = 1}, worker).rank, 2);
  const auto refused = GroupFlags{.headless = true}.resolve(worker);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("--data-parallel-size-local 1"));
}

TEST(GroupFlags, NameWhatCannotBe) {
  const auto error = [](const GroupFlags& flags, const std::optional<LwsEnvironment>& lws = {}) {
    const Result<GroupPlan> plan = flags.resolve(lws);
    return plan ? std::string("none") : plan.error().message;
  };
  EXPECT_THAT(error({.size = 2, .rank = 2}), HasSubstr("--data-parallel-rank 2"));
  EXPECT_THAT(error({.size = 4, .start_rank = 2}), HasSubstr("--data-parallel-size-local"));
  EXPECT_THAT(error({.size = 4, .size_local = 3, .start_rank = 2}), HasSubstr("ranks 2 to 4"));
  EXPECT_THAT(error({.size = 4, .size_local = 2, .headless = true}), HasSubstr("--headless"));
  EXPECT_THAT(error({.size = 4, .rank = 2, .headless = true}), HasSubstr("--headless"));
  EXPECT_THAT(error({.size = 4, .size_local = 2, .address = "h", .rpc_port = 65535}),
              HasSubstr("--data-parallel-rpc-port 65535"));
  EXPECT_THAT(error({.size = 2000}), HasSubstr("1 to 1024"));
  EXPECT_THAT(error({.size = 2, .rpc_port = 70000}), HasSubstr("--data-parallel-rpc-port"));
  EXPECT_THAT(error({.size = 4}, LwsEnvironment{.leader_address = "l", .group_size = 3}),
              HasSubstr("4 over 3 pods"));
}

}  // namespace
}  // namespace wideep::cmd
