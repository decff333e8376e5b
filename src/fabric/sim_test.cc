#include "fabric/sim.h"

#include "fabric/test_barrier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace wideep::fabric {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr ChannelId kChannel{0};

auto ok() {
  return testing::Truly([](const Status& status) { return status.has_value(); });
}

Shape shape_of(std::vector<int> nodes) {
  Shape shape{.arena_bytes = 4096, .num_channels = 1};
  for (const int node : nodes)
    shape.node_of.push_back(NodeId{node});
  return shape;
}

// Each rank writes its number into everyone's arena and signals; then it reads everyone's.
Status exchange(Fabric& fabric, uint64_t seq) {
  const auto me = subscript(fabric.rank());
  const uint64_t number = seq * 1000 + me;
  for (int32_t r = 0; r < fabric.shape().num_ranks(); ++r) {
    WD_TRY(fabric.put(RankId{r}, static_cast<int64_t>(me * sizeof number),
                      std::as_bytes(std::span(&number, 1))));
    WD_TRY(fabric.signal(RankId{r}, kChannel, {.seq = seq, .count = 1}));
  }
  WD_TRY(await_all(fabric, kChannel, seq));
  for (int32_t r = 0; r < fabric.shape().num_ranks(); ++r) {
    uint64_t read = 0;
    std::memcpy(&read, fabric.arena().data() + r * 8, sizeof read);
    if (read != seq * 1000 + static_cast<uint64_t>(r))
      return error(ErrorCode::kDataLoss, "round {}: rank {} reads as {}", seq, r, read);
  }
  return {};
}

// Two barriers a round: the numbers are read before anyone overwrites them.
Status exchanges(Fabric& fabric, uint64_t rounds) {
  for (uint64_t seq = 1; seq <= 2 * rounds; seq += 2) {
    WD_TRY(exchange(fabric, seq));
    for (int32_t r = 0; r < fabric.shape().num_ranks(); ++r)
      WD_TRY(fabric.signal(RankId{r}, kChannel, {.seq = seq + 1}));
    WD_TRY(await_all(fabric, kChannel, seq + 1));
  }
  return {};
}

TEST(Sim, WhoeverSeesTheSignalSeesEveryPutBeforeIt) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const SimReport report = simulate(shape_of({0, 0, 1, 1, 2}), {.seed = seed},
                                      [](Fabric& fabric) { return exchanges(fabric, 3); });
    for (const Status& status : report.status)
      ASSERT_TRUE(status.has_value()) << "seed " << seed << ": " << status.error().message;
  }
}

TEST(Sim, ASeedRunTwiceDoesTheSameAndAnotherSeedDoesNot) {
  const auto run = [](uint64_t seed) {
    return simulate(shape_of({0, 0, 1, 1}), {.seed = seed},
                    [](Fabric& fabric) { return exchanges(fabric, 5); });
  };
  const SimReport first = run(7);
  const SimReport again = run(7);
  EXPECT_EQ(first.trace_hash, again.trace_hash);
  EXPECT_EQ(first.num_events, again.num_events);
  EXPECT_EQ(first.virtual_time, again.virtual_time);
  EXPECT_NE(first.trace_hash, run(8).trace_hash);
}

TEST(Sim, RunsSixtyFourRanks) {
  const Shape shape = shape_of(std::vector<int>(64, 0));
  const SimReport report =
      simulate(shape, {.seed = 3}, [](Fabric& fabric) { return exchanges(fabric, 2); });
  EXPECT_THAT(report.status, testing::Each(ok()));
}

TEST(Sim, EveryOtherRankNamesTheOneThatWasKilled) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    const SimOptions options{.seed = seed,
                             .faults = {{.kind = SimFault::Kind::kKill,
                                         .at = microseconds{static_cast<int64_t>(seed) * 7},
                                         .rank = RankId{2}}}};
    const SimReport report = simulate(shape_of({0, 0, 1, 1}), options,
                                      [](Fabric& fabric) { return exchanges(fabric, 1'000'000); });
    for (size_t r = 0; r < 4; ++r) {
      ASSERT_FALSE(report.status[r].has_value());
      const Error& failure = report.status[r].error();
      if (r == 2) {
        EXPECT_EQ(failure.code, ErrorCode::kCancelled);
      } else {
        EXPECT_EQ(failure.code, ErrorCode::kPeerLost) << failure.message;
        EXPECT_THAT(failure.message, testing::HasSubstr("rank 2 lost")) << "seed " << seed;
      }
    }
    EXPECT_LT(report.virtual_time, seconds{1}) << "seed " << seed;
  }
}

TEST(Sim, AShortPauseOnlyDelaysAndALongOneEndsTheEpoch) {
  const auto run = [](Duration length) {
    const SimOptions options{.faults = {{.kind = SimFault::Kind::kPause,
                                         .at = microseconds{200},
                                         .rank = RankId{1},
                                         .length = length}}};
    return simulate(shape_of({0, 0, 0}), options,
                    [](Fabric& fabric) { return exchanges(fabric, 20); });
  };
  const SimReport shortly = run(seconds{2});
  EXPECT_THAT(shortly.status, testing::Each(ok()));
  EXPECT_GT(shortly.virtual_time, seconds{2});
  const SimReport longer = run(seconds{10});
  for (const Status& status : longer.status) {
    ASSERT_FALSE(status.has_value());
    EXPECT_THAT(status.error().message, testing::HasSubstr("rank 1 lost"));
  }
}

TEST(Sim, ACutLinkEndsTheEpochOnBothSides) {
  const SimOptions options{.faults = {{.kind = SimFault::Kind::kCut,
                                       .at = microseconds{300},
                                       .node = NodeId{0},
                                       .other = NodeId{1}}}};
  const SimReport report = simulate(shape_of({0, 0, 1, 2}), options,
                                    [](Fabric& fabric) { return exchanges(fabric, 1'000'000); });
  for (const Status& status : report.status) {
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code, ErrorCode::kPeerLost) << status.error().message;
  }
  EXPECT_LT(report.virtual_time, seconds{4});
}

TEST(Sim, AWaitForOneThatNeverSpeaksTimesOutAndNamesIt) {
  const SimReport report = simulate(shape_of({0, 0, 0}), {}, [](Fabric& fabric) -> Status {
    const auto missing = [] { return std::vector{RankId{1}}; };
    const auto never = [] { return false; };
    const auto what = [] { return std::string("a word that nobody sends"); };
    return fabric.wait({.ready = never, .what = what, .missing = missing},
                       fabric.clock().now() + milliseconds{250});
  });
  ASSERT_FALSE(report.status[0].has_value());
  EXPECT_EQ(report.status[0].error().code, ErrorCode::kTimeout);
  EXPECT_THAT(report.status[0].error().message,
              testing::AllOf(testing::HasSubstr("a word that nobody sends"),
                             testing::HasSubstr("missing: rank 1 (last sign of life 0 ms ago)")));
}

TEST(Sim, AWaitForOneThatHasLeftFailsAtOnceAndOthersGoOn) {
  const SimReport report = simulate(shape_of({0, 0, 0}), {}, [](Fabric& fabric) -> Status {
    if (fabric.rank() == RankId{2}) return {};  // leaves at once
    const auto missing = [] { return std::vector{RankId{2}}; };
    const auto never = [] { return false; };
    const auto what = [] { return std::string("the last word of rank 2"); };
    return fabric.wait({.ready = never, .what = what, .missing = missing},
                       fabric.clock().now() + seconds{3600});
  });
  EXPECT_TRUE(report.status[2].has_value());
  ASSERT_FALSE(report.status[0].has_value());
  EXPECT_EQ(report.status[0].error().code, ErrorCode::kPeerLost);
  EXPECT_LT(report.virtual_time, seconds{3601});
}

}  // namespace
}  // namespace wideep::fabric
