#include "ep/step_agreement.h"

#include "base/random.h"
#include "ep/exchange.h"
#include "fabric/sim.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

namespace wideep::ep {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

fabric::Shape shape_of(int32_t num_ranks) {
  return {.node_of = std::vector<NodeId>(static_cast<size_t>(num_ranks)),
          .num_channels = kNumChannels};
}

ExchangeOptions options_for(int64_t tokens_max) {
  return {.shape = {.hidden = 64, .top_k = 1, .tokens_max = tokens_max},
          .low_latency_tokens_max = 8,
          .first_seq = UINT64_MAX - 1};
}

// What the exchanges of a step do for the agreement: nobody leaves before all have come.
Status barrier(fabric::Fabric& fabric, uint64_t seq) {
  for (int32_t r = 0; r < fabric.shape().num_ranks(); ++r)
    WD_TRY(fabric.signal(RankId{r}, kDispatchChannel, {.seq = seq}));
  const auto op = [&] { return fmt::format("barrier {}", seq); };
  const auto has_come = [&](RankId rank) -> Result<bool> {
    const auto signal = fabric.poll(rank, kDispatchChannel);
    return signal && static_cast<int64_t>(signal->seq - seq) >= 0;
  };
  return await_all(fabric, op, fabric.clock().now() + seconds{60}, has_come);
}

TEST(StepAgreement, RunsTheDefaultFirstAndThenTheMaximumOfTheWishes) {
  const ExchangeOptions options = options_for(32);
  const auto report = fabric::simulate(shape_of(3), {}, [&](fabric::Fabric& fabric) -> Status {
    StepAgreement steps(fabric, options, 1);
    const int32_t me = index(fabric.rank());
    WD_ASSIGN_OR_RETURN(StepProgram program,
                        steps.begin({.num_tokens = me, .has_work = me == 1, .draft_depth = me}));
    EXPECT_EQ(program.tokens_max, 32);
    EXPECT_EQ(program.mode, Mode::kHighThroughput);
    EXPECT_TRUE(program.anyone_has_work);
    EXPECT_EQ(program.draft_depth, 0);
    WD_TRY(barrier(fabric, 1));
    WD_ASSIGN_OR_RETURN(program, steps.begin({.num_tokens = me == 0 ? 1000 : 0}));
    EXPECT_EQ(program.tokens_max, 2);
    EXPECT_EQ(program.mode, Mode::kLowLatency);
    EXPECT_TRUE(program.anyone_has_work);
    EXPECT_EQ(program.draft_depth, 2);
    WD_TRY(barrier(fabric, 2));
    WD_ASSIGN_OR_RETURN(program, steps.begin({}));
    EXPECT_EQ(program.tokens_max, 32);  // a wish is cut to what there is room for
    EXPECT_FALSE(program.anyone_has_work);
    return {};
  });
  for (const Status& status : report.status)
    EXPECT_TRUE(status.has_value()) << status.error().message;
}

TEST(StepAgreement, EqualProgramsHaveEqualHashesAndOthersNot) {
  const ExchangeOptions options = options_for(32);
  std::map<uint64_t, int> hashes;
  fabric::simulate(shape_of(3), {}, [&](fabric::Fabric& fabric) -> Status {
    StepAgreement steps(fabric, options, 1);
    WD_TRY(steps.begin({.num_tokens = 1, .has_work = true}));
    ++hashes[steps.program_hash()];
    WD_TRY(barrier(fabric, 1));
    WD_TRY(steps.begin({}));
    ++hashes[steps.program_hash()];
    return {};
  });
  EXPECT_EQ(hashes.size(), 2U);
  for (const auto& [hash, count] : hashes)
    EXPECT_EQ(count, 3);
}

TEST(StepAgreement, AnotherConfigurationIsRefusedWithBothNamed) {
  const ExchangeOptions options = options_for(32);
  const auto report = fabric::simulate(shape_of(2), {}, [&](fabric::Fabric& fabric) -> Status {
    StepAgreement steps(fabric, options, static_cast<uint64_t>(index(fabric.rank())) + 0xA0);
    WD_TRY(steps.begin({}));
    WD_TRY(barrier(fabric, 1));
    WD_TRY(steps.begin({}));
    return {};
  });
  ASSERT_FALSE(report.status[0].has_value());
  EXPECT_THAT(report.status[0].error().message,
              testing::AllOf(testing::HasSubstr("rank 1"), testing::HasSubstr("00a1"),
                             testing::HasSubstr("00a0")));
}

TEST(StepAgreement, ASleepEndsByAnotherRanksStepByWakeOrByItsTime) {
  const ExchangeOptions options = options_for(8);
  const auto report = fabric::simulate(shape_of(2), {}, [&](fabric::Fabric& fabric) -> Status {
    StepAgreement steps(fabric, options, 1);
    WD_TRY(steps.begin({}));
    WD_TRY(barrier(fabric, 1));
    WD_ASSIGN_OR_RETURN(const StepProgram program, steps.begin({}));
    EXPECT_FALSE(program.anyone_has_work);
    const TimePoint asleep = fabric.clock().now();
    WD_TRY(steps.sleep_until(asleep + seconds{5}));  // nobody wakes it
    EXPECT_GE(fabric.clock().now(), asleep + seconds{5});
    steps.wake();
    WD_TRY(steps.sleep_until(fabric.clock().now() + hours{1}));
    EXPECT_LT(fabric.clock().now(), asleep + seconds{6});
    if (fabric.rank() == RankId{0}) {
      WD_TRY(steps.sleep_until(fabric.clock().now() + seconds{30}));
    } else {
      WD_TRY(steps.sleep_until(fabric.clock().now() + hours{1}));
      EXPECT_TRUE(steps.is_open());
      EXPECT_LT(fabric.clock().now(), asleep + seconds{40});
    }
    WD_ASSIGN_OR_RETURN(const StepProgram first, steps.begin({}));
    EXPECT_TRUE(first.anyone_has_work);
    return barrier(fabric, 2);
  });
  for (const Status& status : report.status)
    EXPECT_TRUE(status.has_value()) << status.error().message;
}

TEST(StepAgreement, ASleeperNoticesThatARankDied) {
  const ExchangeOptions options = options_for(8);
  const fabric::SimOptions sim{.faults = {{.at = seconds{10}, .rank = RankId{1}}}};
  const auto report = fabric::simulate(shape_of(3), sim, [&](fabric::Fabric& fabric) -> Status {
    StepAgreement steps(fabric, options, 1);
    WD_TRY(steps.begin({}));
    WD_TRY(barrier(fabric, 1));
    WD_TRY(steps.begin({}));
    return steps.sleep_until(fabric.clock().now() + hours{1});
  });
  EXPECT_THAT(report.status[0].error().message, testing::HasSubstr("rank 1 lost"));
  EXPECT_THAT(report.status[2].error().message, testing::HasSubstr("rank 1 lost"));
  EXPECT_LT(report.virtual_time, seconds{11});
}

// The engine loop of a rank whose requests come and go at random for an hour: whoever has work
// steps, the others serve, all sleep together, and no step ever waits for a rank that sleeps.
TEST(StepAgreement, RequestsThatComeAndGoAtRandomForAnHourNeverStall) {
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    const ExchangeOptions options = options_for(8);
    const fabric::SimOptions sim{.seed = seed};
    int64_t sleeps = 0;
    int64_t steps_run = 0;
    const auto report = fabric::simulate(shape_of(4), sim, [&](fabric::Fabric& fabric) -> Status {
      StepAgreement steps(fabric, options, 1);
      Random random(seed * 100 + static_cast<uint64_t>(index(fabric.rank())));
      const TimePoint end = TimePoint{} + hours{1};
      TimePoint next_request = TimePoint{} + milliseconds{static_cast<int64_t>(random.below(9000))};
      uint64_t barriers = 0;
      int64_t work = 0;  // steps that the requests here still need
      while (fabric.clock().now() < end) {
        if (fabric.clock().now() >= next_request) {
          work += 1 + static_cast<int64_t>(random.below(5));
          // Often while others are just about to fall asleep.
          next_request = fabric.clock().now() +
                         (random.below(2) == 0
                              ? Duration{microseconds{static_cast<int64_t>(random.below(300))}}
                              : Duration{milliseconds{static_cast<int64_t>(random.below(20000))}});
        }
        WD_ASSIGN_OR_RETURN(const StepProgram program,
                            steps.begin({.num_tokens = work > 0 ? 1 : 0, .has_work = work > 1}));
        if (program.anyone_has_work) {
          ++steps_run;
          work = std::max<int64_t>(work - 1, 0);
          WD_TRY(barrier(fabric, ++barriers));
          continue;
        }
        ++sleeps;
        while (work == 0 && !steps.is_open() && fabric.clock().now() < end) {
          WD_TRY(steps.sleep_until(std::min(next_request, end)));
          if (fabric.clock().now() >= next_request) break;
        }
      }
      return {};
    });
    for (const Status& status : report.status) {
      // At the end some leave while others still step.
      if (status) continue;
      EXPECT_EQ(status.error().code, ErrorCode::kPeerLost) << status.error().message;
      EXPECT_THAT(status.error().message, testing::HasSubstr("left")) << "seed " << seed;
    }
    EXPECT_GT(sleeps, 100) << "seed " << seed;
    EXPECT_GT(steps_run, 1000) << "seed " << seed;
    EXPECT_LT(report.virtual_time, hours{1} + seconds{30});
  }
}

}  // namespace
}  // namespace wideep::ep
