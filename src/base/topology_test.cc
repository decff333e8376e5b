#include "base/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace wideep {
namespace {

using ::testing::ElementsAre;

RankCpus place(const std::string& machine, int index, int num_ranks) {
  const Result<Topology> topology = Topology::synthetic(machine);
  EXPECT_TRUE(topology) << machine;
  const Result<RankCpus> rank = topology->cpus_of_rank(index, num_ranks);
  EXPECT_TRUE(rank) << index << " of " << num_ranks;
  return *rank;
}

TEST(Topology, OneRankOnOneNodeGetsEveryCoreOnce) {
  // Four cores of two hardware threads: 0 and 1 are one core.
  EXPECT_THAT(place("numa:1 core:4 pu:2", 0, 1).cpus, ElementsAre(0, 2, 4, 6));
  EXPECT_THAT(place("numa:1 core:4 pu:1", 0, 1).cpus, ElementsAre(0, 1, 2, 3));
}

TEST(CpuQuota, IsReadAsWholeCores) {
  EXPECT_EQ(parse_cpu_max("1600000 100000\n"), 16);
  EXPECT_EQ(parse_cpu_max("250000 100000"), 2);
  EXPECT_EQ(parse_cpu_max("50000 100000"), 1);
  for (const char* none : {"", "max 100000", "-1 100000", "100000", "100000 0", "x y"})
    EXPECT_FALSE(parse_cpu_max(none)) << none;
}

TEST(Topology, TellsTheCacheThatAllCoresShareOnly) {
  const auto shared = [](const char* machine) {
    return Topology::synthetic(machine)->shared_cache_bytes();
  };
  EXPECT_EQ(shared("numa:1 l3:1(size=33554432) core:4 pu:1"), 32 << 20);
  EXPECT_EQ(shared("numa:1 l3:2(size=33554432) core:4 pu:1"), 0);
  EXPECT_EQ(shared("numa:1 core:4 pu:1"), 0);
}

TEST(Topology, ARankPerNodeStaysOnItsNode) {
  const std::string machine = "numa:2 core:4 pu:2";
  EXPECT_THAT(place(machine, 0, 2).cpus, ElementsAre(0, 2, 4, 6));
  EXPECT_THAT(place(machine, 0, 2).numa_nodes, ElementsAre(0));
  EXPECT_THAT(place(machine, 1, 2).cpus, ElementsAre(8, 10, 12, 14));
  EXPECT_THAT(place(machine, 1, 2).numa_nodes, ElementsAre(1));
  EXPECT_FALSE(place(machine, 1, 2).shared);
}

TEST(Topology, RanksOfANodeShareItsCoresEvenly) {
  const std::string machine = "numa:2 core:4 pu:1";
  EXPECT_THAT(place(machine, 0, 4).cpus, ElementsAre(0, 1));
  EXPECT_THAT(place(machine, 1, 4).cpus, ElementsAre(2, 3));
  EXPECT_THAT(place(machine, 2, 4).cpus, ElementsAre(4, 5));
  EXPECT_THAT(place(machine, 3, 4).cpus, ElementsAre(6, 7));
}

TEST(Topology, ThreeRanksOnTwoNodesLeaveNoCoreIdle) {
  const std::string machine = "numa:2 core:4 pu:1";
  EXPECT_THAT(place(machine, 0, 3).cpus, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(place(machine, 1, 3).cpus, ElementsAre(4, 5));
  EXPECT_THAT(place(machine, 2, 3).cpus, ElementsAre(6, 7));
}

TEST(Topology, FewerRanksThanNodesTakeWholeNodes) {
  const RankCpus rank = place("numa:4 core:2 pu:1", 1, 2);
  EXPECT_THAT(rank.cpus, ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(rank.numa_nodes, ElementsAre(2, 3));
}

TEST(Topology, MoreRanksThanCoresTakeTurns) {
  const std::string machine = "numa:1 core:2 pu:1";
  EXPECT_THAT(place(machine, 0, 8).cpus, ElementsAre(0));
  EXPECT_THAT(place(machine, 3, 8).cpus, ElementsAre(1));
  EXPECT_TRUE(place(machine, 3, 8).shared);
}

TEST(Topology, EveryCoreServesARankAndNoCoreTwoWhereThereAreEnough) {
  for (const char* machine : {"numa:1 core:7 pu:1", "numa:2 core:6 pu:2",
                              "pack:2 numa:2 core:3 pu:1", "numa:8 core:8 pu:2"}) {
    const Result<Topology> topology = Topology::synthetic(machine);
    ASSERT_TRUE(topology);
    for (int num_ranks = 1; num_ranks <= topology->num_cores(); ++num_ranks) {
      std::multiset<int> used;
      for (int index = 0; index < num_ranks; ++index) {
        const Result<RankCpus> rank = topology->cpus_of_rank(index, num_ranks);
        ASSERT_TRUE(rank);
        ASSERT_FALSE(rank->cpus.empty());
        if (rank->shared) continue;  // more ranks on a node than cores, though not on the host
        used.insert(rank->cpus.begin(), rank->cpus.end());
        ASSERT_TRUE(num_ranks < topology->num_numa_nodes() || rank->numa_nodes.size() == 1);
      }
      for (const int cpu : used)
        ASSERT_EQ(used.count(cpu), 1U) << machine << " " << num_ranks;
    }
  }
}

TEST(Topology, RefusesRanksThatDoNotExist) {
  const Result<Topology> topology = Topology::synthetic("core:2 pu:1");
  ASSERT_TRUE(topology);
  EXPECT_EQ(topology->cpus_of_rank(2, 2).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(topology->cpus_of_rank(-1, 2).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(topology->cpus_of_rank(0, 0).error().code, ErrorCode::kInvalidArgument);
}

TEST(Topology, RefusesWhatDescribesNoMachine) {
  EXPECT_EQ(Topology::synthetic("cores and more").error().code, ErrorCode::kInvalidArgument);
}

TEST(Topology, KnowsThisMachine) {
  const Result<Topology> topology = Topology::of_this_machine();
  ASSERT_TRUE(topology);
  EXPECT_GE(topology->num_cores(), 1);
  EXPECT_GE(topology->num_numa_nodes(), 1);
}

TEST(PinnedPool, SpinsOnlyWhereEveryThreadHasACoreOfItsOwn) {
  const RankCpus alone{.cpus = {2, 3}, .numa_nodes = {0}};
  EXPECT_EQ(pinned_pool(alone, 0).num_threads, 2);
  EXPECT_THAT(pinned_pool(alone, 0).cpus, ElementsAre(2, 3));
  EXPECT_GT(pinned_pool(alone, 0).spin.count(), 0);
  EXPECT_THAT(pinned_pool(alone, 3).cpus, ElementsAre(2, 3, 2));
  EXPECT_EQ(pinned_pool(alone, 3).spin.count(), 0);
  const RankCpus crowded{.cpus = {1}, .numa_nodes = {0}, .shared = true};
  EXPECT_EQ(pinned_pool(crowded, 1).spin.count(), 0);
}

}  // namespace
}  // namespace wideep
