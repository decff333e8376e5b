// Storms: thousands of groups, each with its own shape, delays and accidents, all from one seed.
// What must hold in each: nobody hangs; either the bits are the judge's, or the error names the
// rank that died. `sim_test --seeds=20000` runs more; `--first=S --seeds=1` replays the seed of a
// failure.
#include "ep/balance.h"
#include "ep/test_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <string_view>

namespace wideep::ep {
namespace {

using math::RowFormat;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

struct Seeds {
  uint64_t first = 1;
  uint64_t count = 0;  // 0: the test's own
};

Seeds from_command_line;

Seeds seeds(uint64_t count) {
  Seeds chosen = from_command_line;
  if (chosen.count == 0) chosen.count = count;
  return chosen;
}

RowFormats random_formats(Random& random) {
  constexpr RowFormat kAll[] = {RowFormat::kF32, RowFormat::kBf16, RowFormat::kInt8,
                                RowFormat::kFp8};
  return {.dispatch = kAll[random.below(4)],
          .input = kAll[random.below(4)],
          .combine = random.below(2) == 0 ? RowFormat::kF32 : RowFormat::kBf16};
}

// One to eight ranks on one to four nodes, in any order; any format, mode, replica and chunk.
SimGroup random_group(uint64_t seed) {
  Random random(seed);
  const Scenario scenario{.seed = seed,
                          .num_ranks = 1 + static_cast<int32_t>(random.below(8)),
                          .num_experts = 4 + static_cast<int32_t>(random.below(12)),
                          .top_k = 1 + static_cast<int64_t>(random.below(4)),
                          .hidden = 16 + static_cast<int64_t>(random.below(100)),
                          .num_layers = 1 + static_cast<int32_t>(random.below(3)),
                          .num_steps = 1 + static_cast<int32_t>(random.below(4)),
                          .tokens_max = 1 + static_cast<int64_t>(random.below(12)),
                          .formats = random_formats(random)};
  const uint64_t num_nodes = 1 + random.below(4);
  std::vector<int> nodes;
  for (int32_t r = 0; r < scenario.num_ranks; ++r)
    nodes.push_back(static_cast<int>(random.below(num_nodes)));
  SimGroup group = sim_group(scenario, nodes);
  if (random.below(2) == 0) {
    std::vector<double> load;
    for (int32_t e = 0; e < scenario.num_experts; ++e)
      load.push_back(random.uniform() * random.uniform());
    const int32_t per_rank = (scenario.num_experts + scenario.num_ranks - 1) / scenario.num_ranks +
                             static_cast<int32_t>(random.below(3));
    const auto placed = balance({.load = load,
                                 .num_ranks = scenario.num_ranks,
                                 .num_slots = per_rank * scenario.num_ranks});
    group.placement = Placement(std::vector(static_cast<size_t>(scenario.num_layers), *placed));
  }
  group.options.replicas = random.below(2) == 0 ? ReplicaChoice::kSpread : ReplicaChoice::kNearest;
  group.options.low_latency_tokens_max = random.below(2) == 0 ? 128 : 2;
  group.options.chunk_tokens = 1 + static_cast<int64_t>(random.below(5));
  group.options.row_block = 1 + static_cast<int64_t>(random.below(8));
  group.options.batch_rows_max =
      random.below(2) == 0 ? 4096 : 1 + static_cast<int64_t>(random.below(9));
  group.options.first_seq = UINT64_MAX - random.below(8);
  group.sim.delay_max = microseconds{2 + static_cast<int64_t>(random.below(200))};
  group.sim.preempt_chance = 0.5 * random.uniform();
  return group;
}

// Whoever got through has the judge's bits; `on_error` judges how the others ended. Whether there
// are any.
bool expect_bits_or(const SimGroup& group,
                    const Outcome& outcome,
                    FunctionRef<void(RankId, const Error&)> on_error) {
  const Rows expected = reference_rows(group.scenario);
  bool any_failed = false;
  for (size_t r = 0; r < expected.size(); ++r) {
    const Status& status = outcome.report.status[r];
    any_failed |= !status;
    if (status) {
      EXPECT_TRUE(same_bits(outcome.rows[r], expected[r])) << "rank " << r;
    } else {
      on_error(RankId{static_cast<int32_t>(r)}, status.error());
    }
  }
  return any_failed;
}

void expect_judged(const SimGroup& group, const Outcome& outcome) {
  expect_bits_or(group, outcome, [](RankId rank, const Error& error) {
    ADD_FAILURE() << "rank " << index(rank) << ": " << error.message;
  });
}

// Runs body(seed, group of that seed), until one fails.
template <typename Body>
void for_seeds(uint64_t count, Body body) {
  const Seeds run_these = seeds(count);
  for (uint64_t seed = run_these.first; seed < run_these.first + run_these.count; ++seed) {
    SCOPED_TRACE("replay with --seeds=1 --first=" + std::to_string(seed));
    SimGroup group = random_group(seed);
    body(seed, group);
    if (testing::Test::HasFailure()) return;
  }
}

// The same with an accident: body says whether any rank felt it. If few do, the test shows little.
template <typename Body>
void for_accidents(uint64_t count, Body body) {
  uint64_t num_felt = 0;
  uint64_t num_run = 0;
  for_seeds(count, [&](uint64_t seed, SimGroup& group) {
    num_felt += body(seed, group) ? 1 : 0;
    ++num_run;
  });
  if (num_run >= 100) {
    EXPECT_GT(num_felt, num_run / 5);
  }
}

RankId any_rank(const SimGroup& group, Random& random) {
  return RankId{
      static_cast<int32_t>(random.below(static_cast<uint64_t>(group.scenario.num_ranks)))};
}

TEST(ExchangeStorm, DelaysAndReorderingNeverChangeABit) {
  for_seeds(600, [](uint64_t, SimGroup& group) { expect_judged(group, run(group)); });
}

TEST(ExchangeStorm, PausesBelowTheDeadlineNeverChangeABit) {
  for_seeds(200, [](uint64_t seed, SimGroup& group) {
    Random random(seed + 1);
    for (int i = 0; i < 3; ++i) {
      group.sim.faults.push_back({.kind = fabric::SimFault::Kind::kPause,
                                  .at = microseconds{static_cast<int64_t>(random.below(2000))},
                                  .rank = any_rank(group, random),
                                  .length = milliseconds{static_cast<int64_t>(random.below(900))}});
    }
    expect_judged(group, run(group));
  });
}

// A rank that died says so itself (kCancelled); a survivor either had all it needed or names it.
bool expect_named(const SimGroup& group, const Outcome& outcome, RankId dead) {
  const std::string named = fmt::format("rank {} lost", index(dead));
  return expect_bits_or(group, outcome, [&](RankId rank, const Error& error) {
    if (error.code == ErrorCode::kCancelled) {
      EXPECT_EQ(rank, dead);
      return;
    }
    EXPECT_EQ(error.code, ErrorCode::kPeerLost) << error.message;
    EXPECT_THAT(error.message, testing::HasSubstr(named)) << "on rank " << index(rank);
  });
}

TEST(ExchangeStorm, WhenARankIsKilledEveryOtherNamesItAndNobodyHangs) {
  for_accidents(600, [](uint64_t seed, SimGroup& group) {
    Random random(seed + 2);
    const RankId dead = any_rank(group, random);
    group.sim.faults.push_back({.kind = fabric::SimFault::Kind::kKill,
                                .at = microseconds{static_cast<int64_t>(random.below(3000))},
                                .rank = dead});
    const Outcome outcome = run(group);
    EXPECT_LT(outcome.report.virtual_time, seconds{2});
    return expect_named(group, outcome, dead);
  });
}

TEST(ExchangeStorm, WhenARankIsStoppedTooLongItIsNamedByAllEvenByItself) {
  for_accidents(200, [](uint64_t seed, SimGroup& group) {
    Random random(seed + 3);
    const RankId stopped = any_rank(group, random);
    group.sim.faults.push_back({.kind = fabric::SimFault::Kind::kPause,
                                .at = microseconds{static_cast<int64_t>(random.below(1000))},
                                .rank = stopped,
                                .length = seconds{20}});
    const Outcome outcome = run(group);
    EXPECT_LT(outcome.report.virtual_time, seconds{22});
    return expect_named(group, outcome, stopped);
  });
}

TEST(ExchangeStorm, WhenALinkIsCutBothSidesEndWithinTheLivenessDeadline) {
  for_accidents(200, [](uint64_t seed, SimGroup& group) {
    Random random(seed + 4);
    group.sim.faults.push_back({.kind = fabric::SimFault::Kind::kCut,
                                .at = microseconds{static_cast<int64_t>(random.below(1000))},
                                .node = NodeId{0},
                                .other = NodeId{1}});
    const Outcome outcome = run(group);
    EXPECT_LT(outcome.report.virtual_time, seconds{5});
    return expect_bits_or(group, outcome, [](RankId, const Error& error) {
      EXPECT_EQ(error.code, ErrorCode::kPeerLost) << error.message;
    });
  });
}

TEST(ExchangeStorm, ASeedRunTwiceGivesTheSameTrace) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const SimGroup group = random_group(seed);
    const Outcome first = run(group);
    const Outcome again = run(group);
    EXPECT_EQ(first.report.trace_hash, again.report.trace_hash) << "seed " << seed;
  }
}

TEST(ExchangeStorm, SixtyFourRanksOnEightNodes) {
  const Scenario scenario{.seed = 64,
                          .num_ranks = 64,
                          .num_experts = 96,
                          .top_k = 6,
                          .tokens_max = 6,
                          .formats = {RowFormat::kBf16, RowFormat::kBf16, RowFormat::kF32}};
  std::vector<int> nodes;
  for (int r = 0; r < 64; ++r)
    nodes.push_back(r / 8);
  const SimGroup group = sim_group(scenario, nodes);
  expect_judged(group, run(group));
}

}  // namespace

void set_seeds(std::string_view argument) {
  const auto value = [&](std::string_view name) -> uint64_t {
    return argument.starts_with(name) ? std::strtoull(argument.data() + name.size(), nullptr, 10)
                                      : 0;
  };
  if (const uint64_t first = value("--first=")) from_command_line.first = first;
  if (const uint64_t count = value("--seeds=")) from_command_line.count = count;
}

}  // namespace wideep::ep

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i)
    wideep::ep::set_seeds(argv[i]);
  return RUN_ALL_TESTS();
}
