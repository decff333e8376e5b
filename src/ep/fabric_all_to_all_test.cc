#include "ep/fabric_all_to_all.h"

#include "ep/balance.h"
#include "ep/incoming.h"
#include "ep/outgoing.h"
#include "ep/reference_all_to_all.h"
#include "ep/test_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

namespace wideep::ep {
namespace {

using math::RowFormat;
using std::chrono::seconds;

void expect_same(const SimGroup& group, const Outcome& outcome, const Rows& expected) {
  for (size_t r = 0; r < expected.size(); ++r) {
    ASSERT_TRUE(outcome.report.status[r].has_value())
        << "seed " << group.scenario.seed << ": " << outcome.report.status[r].error().message;
    ASSERT_TRUE(same_bits(outcome.rows[r], expected[r]))
        << "seed " << group.scenario.seed << ", rank " << r;
  }
}

constexpr RowFormats kAllF32{RowFormat::kF32, RowFormat::kF32, RowFormat::kF32};

TEST(FabricAllToAll, GivesTheBitsOfTheJudgeInEveryFormat) {
  const std::vector<RowFormats> all = {
      kAllF32,
      {RowFormat::kBf16, RowFormat::kBf16, RowFormat::kBf16},
      {RowFormat::kInt8, RowFormat::kInt8, RowFormat::kF32},
      {RowFormat::kFp8, RowFormat::kFp8, RowFormat::kBf16},
      {RowFormat::kBf16, RowFormat::kInt8, RowFormat::kBf16},
      {RowFormat::kFp8, RowFormat::kBf16, RowFormat::kF32},
      {RowFormat::kF32, RowFormat::kBf16, RowFormat::kF32},
  };
  for (const RowFormats& formats : all) {
    const Scenario scenario{.seed = 5, .num_ranks = 4, .hidden = 192, .formats = formats};
    const SimGroup one = sim_group(scenario, {0, 0, 1, 1});
    expect_same(one, run(one), reference_rows(scenario));
  }
}

TEST(FabricAllToAll, GivesTheBitsOfTheJudgeForEveryNumberOfRanksAndNodes) {
  for (const std::vector<int>& nodes : std::vector<std::vector<int>>{{0},
                                                                     {0, 0},
                                                                     {0, 1},
                                                                     {0, 0, 0},
                                                                     {0, 0, 1},
                                                                     {0, 1, 2},
                                                                     {0, 0, 0, 0, 0},
                                                                     {0, 0, 0, 1, 1},
                                                                     {0, 1, 0, 1, 0},
                                                                     {0, 0, 1, 1, 2, 2, 3, 3},
                                                                     {0, 0, 0, 0, 0, 0, 0, 0}}) {
    const Scenario scenario{.seed = 9,
                            .num_ranks = static_cast<int32_t>(nodes.size()),
                            .num_experts = 7,
                            .top_k = 3,
                            .num_steps = 4,
                            .formats = kAllF32};
    const SimGroup one = sim_group(scenario, nodes);
    expect_same(one, run(one), reference_rows(scenario));
  }
}

TEST(FabricAllToAll, GivesTheSameBitsWhicheverReplicaComputes) {
  Scenario scenario{.seed = 3, .num_ranks = 5, .num_experts = 8, .top_k = 4, .formats = kAllF32};
  const Rows expected = reference_rows(scenario);
  const std::vector<double> load = {100, 1, 1, 50, 1, 1, 1, 20};
  const auto placed = balance({.load = load, .num_ranks = 5, .num_slots = 15});
  ASSERT_TRUE(placed.has_value());
  SimGroup one = sim_group(scenario, {0, 0, 1, 1, 1});
  one.placement = Placement({*placed, LayerPlacement::linear(8, 5)});
  expect_same(one, run(one), expected);
  one.options.replicas = ReplicaChoice::kNearest;
  expect_same(one, run(one), expected);
}

TEST(FabricAllToAll, GivesTheSameBitsAcrossTheWrapOfSequenceNumbers) {
  for (const uint64_t first : {UINT64_MAX - 5, UINT64_MAX, uint64_t{0}}) {
    Scenario scenario{.num_ranks = 3, .num_steps = 6, .formats = kAllF32};
    SimGroup one = sim_group(scenario, {0, 0, 1});
    one.options.first_seq = first;
    expect_same(one, run(one), reference_rows(scenario));
  }
}

TEST(FabricAllToAll, HighThroughputGivesTheSameBitsAsLowLatency) {
  Scenario scenario{.num_ranks = 4, .tokens_max = 60, .formats = kAllF32};
  const Rows expected = reference_rows(scenario);
  SimGroup one = sim_group(scenario, {0, 0, 1, 1});
  one.options.low_latency_tokens_max = 0;
  one.options.chunk_tokens = 7;
  one.options.row_block = 5;
  expect_same(one, run(one), expected);
  one.options.batch_rows_max = 3;
  expect_same(one, run(one), expected);
}

TEST(FabricAllToAll, HighThroughputStartsAnExpertAtMostOncePerBlockOfRows) {
  Scenario scenario{.num_ranks = 4, .num_experts = 4, .tokens_max = 200, .formats = kAllF32};
  SimGroup one = sim_group(scenario, {0, 0, 0, 0});
  one.options.low_latency_tokens_max = 0;
  one.options.chunk_tokens = 16;
  one.options.row_block = 64;
  scenario.num_steps = one.scenario.num_steps = 1;

  struct Count {
    int64_t starts = 0;
    int64_t rows = 0;
  };

  std::map<std::pair<LayerId, ExpertId>, Count> counts;
  const auto report = on_every_rank(one, [&](FabricAllToAll& exchange, fabric::Fabric& fabric) {
    const auto count = [&](LayerId layer, const ExpertRows& rows) {
      Count& c = counts[{layer, one.placement.layer(layer).expert_at({fabric.rank(), rows.slot})}];
      ++c.starts;
      c.rows += std::ssize(rows.in);
    };
    const auto result = run_scenario(scenario, exchange, one.placement, fabric.rank(), count);
    return result ? Status{} : std::unexpected(result.error());
  });
  bool any_split = false;
  for (const auto& [where, count] : counts) {
    EXPECT_LE(count.starts, (count.rows + 63) / 64);
    any_split |= count.starts > 1;
  }
  EXPECT_TRUE(any_split);  // else this test shows nothing
}

TEST(FabricAllToAll, LowLatencyStartsEveryExpertOnce) {
  Scenario scenario{.num_ranks = 3, .num_layers = 1, .num_steps = 1, .formats = kAllF32};
  const SimGroup one = sim_group(scenario, {0, 1, 1});
  std::map<std::pair<RankId, SlotId>, int> starts;
  on_every_rank(one, [&](FabricAllToAll& exchange, fabric::Fabric& fabric) {
    const auto count = [&](LayerId, const ExpertRows& rows) {
      ++starts[{fabric.rank(), rows.slot}];
    };
    const auto result = run_scenario(scenario, exchange, one.placement, fabric.rank(), count);
    return result ? Status{} : std::unexpected(result.error());
  });
  EXPECT_FALSE(starts.empty());
  for (const auto& [slot, count] : starts)
    EXPECT_EQ(count, 1);
}

TEST(FabricAllToAll, SendsARowOncePerNodeHoweverManyOfItsExpertsLiveThere) {
  // One token of rank 0 with all four experts, two of them on each node.
  Scenario scenario{.num_ranks = 4, .num_experts = 4, .top_k = 4, .formats = kAllF32};
  const SimGroup one = sim_group(scenario, {0, 0, 1, 1});
  const ExchangeLayout layout(one.options.shape, one.shape().node_of);
  fabric::WireCounters sent;
  const auto report =
      on_every_rank(one, [&](FabricAllToAll& exchange, fabric::Fabric& fabric) -> Status {
        WD_TRY(exchange.begin_step({}));
        const fabric::WireCounters before = fabric.wire();
        Matrix<float> x(fabric.rank() == RankId{0} ? 1 : 0, scenario.hidden);
        const std::vector<ExpertId> experts = {ExpertId{0}, ExpertId{1}, ExpertId{2}, ExpertId{3}};
        const std::vector<float> weights(4, 1.0F);
        const auto n = static_cast<size_t>(4 * x.rows());
        WD_TRY(exchange.start_dispatch(LayerId{0}, x.view(),
                                       {.num_tokens = x.rows(),
                                        .top_k = 4,
                                        .experts = std::span(experts).first(n),
                                        .weights = std::span(weights).first(n)}));
        if (fabric.rank() == RankId{0})
          sent = {.bytes_sent = fabric.wire().bytes_sent - before.bytes_sent,
                  .frames_sent = fabric.wire().frames_sent - before.frames_sent};
        for (;;) {
          WD_ASSIGN_OR_RETURN(const ExpertBatch batch, exchange.next_experts());
          if (batch.experts.empty()) break;
          WD_TRY(exchange.finish(batch));
        }
        return exchange.combine({}, x.view());
      });
  for (const Status& status : report.status)
    EXPECT_TRUE(status.has_value());
  // One row, two lists of one entry, two words.
  EXPECT_EQ(sent.frames_sent, 5U);
  EXPECT_EQ(sent.bytes_sent, static_cast<uint64_t>(layout.row_bytes()) + 2 * sizeof(ListEntry) +
                                 2 * sizeof(fabric::Signal));
}

TEST(FabricAllToAll, ARankThatBringsMoreThanTheStepHasRoomForFailsBeforeItSends) {
  Scenario scenario{.num_ranks = 2, .num_layers = 1, .formats = kAllF32};
  SimGroup one = sim_group(scenario, {0, 0});
  one.options.progress_deadline = seconds{5};
  const auto report =
      on_every_rank(one, [&](FabricAllToAll& exchange, fabric::Fabric& fabric) -> Status {
        const int64_t rows = fabric.rank() == RankId{1} ? scenario.tokens_max + 1 : 0;
        WD_TRY(exchange.begin_step({}));
        Matrix<float> x(rows, scenario.hidden);
        const std::vector<ExpertId> experts(static_cast<size_t>(rows * 2));
        const std::vector<float> weights(experts.size());
        const Status started =
            exchange.start_dispatch(LayerId{0}, x.view(), {rows, 2, experts, weights});
        const auto batch = exchange.next_experts();
        EXPECT_FALSE(batch.has_value());
        if (!started) EXPECT_EQ(batch.error().message, started.error().message) << "it is dead";
        return batch ? Status{} : std::unexpected(batch.error());
      });
  ASSERT_FALSE(report.status[1].has_value());
  EXPECT_EQ(report.status[1].error().code, ErrorCode::kExhausted);
  EXPECT_THAT(report.status[1].error().message, testing::HasSubstr("9 rows"));
  ASSERT_FALSE(report.status[0].has_value());
  EXPECT_THAT(
      report.status[0].error().message,
      testing::AllOf(testing::HasSubstr("dispatch of layer 0"), testing::HasSubstr("rank 1")));
}

TEST(FabricAllToAll, RanksThatRunDifferentLayersGetAnErrorThatNamesBoth) {
  Scenario scenario{.num_ranks = 2, .formats = kAllF32};
  const SimGroup one = sim_group(scenario, {0, 0});
  const auto report =
      on_every_rank(one, [&](FabricAllToAll& exchange, fabric::Fabric& fabric) -> Status {
        WD_TRY(exchange.begin_step({}));
        const Matrix<float> x(0, scenario.hidden);
        WD_TRY(exchange.start_dispatch(LayerId{index(fabric.rank())}, x.view(), {0, 2, {}, {}}));
        for (;;) {
          WD_ASSIGN_OR_RETURN(const ExpertBatch batch, exchange.next_experts());
          if (batch.experts.empty()) return {};
        }
      });
  ASSERT_FALSE(report.status[0].has_value());
  EXPECT_THAT(report.status[0].error().message,
              testing::AllOf(testing::HasSubstr("rank 1"), testing::HasSubstr("at layer 1"),
                             testing::HasSubstr("at layer 0")));
}

// Experts 6 and 7 live in slots 0 and 1 of rank 2, whose slot 2 is empty. What rank 0 has listed
// there is changed before rank 2 looks.
TEST(FabricAllToAll, AListThatNamesAnEmptySlotIsAnErrorThatNamesItsSender) {
  const Scenario scenario{.num_ranks = 3, .num_experts = 8, .formats = kAllF32};
  const SimGroup one = sim_group(scenario, {0, 0, 0});
  const ExchangeLayout layout(one.options.shape, one.shape().node_of);
  constexpr fabric::ChannelId kUnused = step_channel(3);
  const auto report =
      on_every_rank(one, [&](FabricAllToAll& exchange, fabric::Fabric& fabric) -> Status {
        WD_TRY(exchange.begin_step({}));
        const bool sends = fabric.rank() == RankId{0};
        const Matrix<float> x(sends ? 1 : 0, scenario.hidden);
        const std::vector<ExpertId> experts(sends ? 2 : 0, ExpertId{6});
        const std::vector<float> weights(experts.size());
        WD_TRY(exchange.start_dispatch(LayerId{0}, x.view(), {x.rows(), 2, experts, weights}));
        if (sends) {
          const ListEntry entry{.token = 0, .slot = 2, .k = 0};
          std::memcpy(fabric.mapped(RankId{2}).data() + layout.list(RankId{0}), &entry,
                      sizeof entry);
          WD_TRY(fabric.signal(RankId{2}, kUnused, {.seq = 1}));
        }
        if (fabric.rank() == RankId{2}) {
          const auto ready = [&] { return fabric.poll(RankId{0}, kUnused).has_value(); };
          const auto what = [] { return std::string("the change"); };
          const auto missing = [] { return std::vector{RankId{0}}; };
          WD_TRY(fabric.wait({.ready = ready, .what = what, .missing = missing},
                             fabric.clock().now() + seconds{60}));
        }
        WD_TRY(exchange.next_experts());
        return {};
      });
  ASSERT_FALSE(report.status[2].has_value());
  EXPECT_EQ(report.status[2].error().code, ErrorCode::kDataLoss);
  EXPECT_THAT(report.status[2].error().message,
              testing::AllOf(testing::HasSubstr("rank 0"), testing::HasSubstr("slot 2 (of 2)")));
}

TEST(FabricAllToAll, RefusesToStartWithAFabricThatDoesNotFit) {
  Scenario scenario{.num_ranks = 2, .formats = kAllF32};
  const SimGroup one = sim_group(scenario, {0, 0});
  const auto refuse = [&](fabric::Shape shape, ExchangeOptions options) {
    const auto report = fabric::simulate(shape, {}, [&](fabric::Fabric& fabric) -> Status {
      ThreadPool pool({.num_threads = 1});
      const auto exchange =
          FabricAllToAll::create(fabric, one.placement, math::reference_kernels(), pool, options);
      return exchange ? Status{} : std::unexpected(exchange.error());
    });
    return !report.status[0].has_value();
  };
  EXPECT_FALSE(refuse(one.shape(), one.options));
  fabric::Shape shape = one.shape();
  shape.arena_bytes -= 1;
  EXPECT_TRUE(refuse(shape, one.options));
  shape = one.shape();
  shape.num_channels = kNumChannels - 1;
  EXPECT_TRUE(refuse(shape, one.options));
  shape = one.shape();
  shape.node_of.push_back(NodeId{0});
  EXPECT_TRUE(refuse(shape, one.options));
  ExchangeOptions options = one.options;
  options.batch_rows_max = 0;
  EXPECT_TRUE(refuse(one.shape(), options));
  options = one.options;
  options.shape.formats.combine = RowFormat::kInt8;
  EXPECT_TRUE(refuse(one.shape(), options));
}

// The real shared memory, with ranks as threads, so that a thread sanitizer sees both ends.
TEST(FabricAllToAll, GivesTheBitsOfTheJudgeOverSharedMemory) {
  for (const int32_t n : {1, 2, 3, 5}) {
    const Scenario scenario{.seed = 77,
                            .num_ranks = n,
                            .num_experts = 9,
                            .top_k = 3,
                            .num_layers = 3,
                            .num_steps = 20,
                            .tokens_max = 20,
                            .formats = {RowFormat::kBf16, RowFormat::kInt8, RowFormat::kF32}};
    SimGroup group = sim_group(scenario, std::vector<int>(static_cast<size_t>(n)));
    const Rows expected = reference_rows(scenario);
    EXPECT_EQ(run_on_threads(group).rows, expected);
    group.options.low_latency_tokens_max = 0;
    group.options.chunk_tokens = 3;
    group.options.row_block = 8;
    EXPECT_EQ(run_on_threads(group).rows, expected);
  }
}

// What must go over the wire for a scenario: rows once per (token, node), in as few frames as there
// are runs of neighbours; one list per (source, rank) and layer; results; words.
struct Wire {
  uint64_t bytes = 0;
  uint64_t frames = 0;

  void add(uint64_t payload, uint64_t count = 1) {
    bytes += count * (16 + payload);
    frames += count;
  }
};

// One exchange, from the side of source `s`, without wider views than the routing.
void add_exchange(const SimGroup& group,
                  const std::vector<ExpertId>& experts,
                  int32_t s,
                  Wire& wire) {
  const fabric::Shape shape = group.shape();
  const ExchangeLayout layout(group.options.shape, shape.node_of);
  const auto top_k = static_cast<size_t>(group.scenario.top_k);
  const auto home = [&](ExpertId e) {
    return group.placement.layer(LayerId{0}).replicas(e).front().rank;
  };
  for (const auto& ranks : shape.ranks_by_node()) {
    if (shape.same_node(ranks.front(), RankId{s})) continue;
    bool last_wanted = false;
    for (size_t t = 0; t < experts.size() / top_k; ++t) {
      const auto chosen = std::span(experts).subspan(t * top_k, top_k);
      const bool wanted = std::ranges::any_of(
          chosen, [&](ExpertId e) { return shape.same_node(home(e), ranks.front()); });
      if (wanted) wire.bytes += static_cast<uint64_t>(layout.row_bytes());
      if (wanted && !last_wanted) wire.add(0);
      last_wanted = wanted;
    }
    for (const RankId rank : ranks) {
      const auto entries = static_cast<uint64_t>(
          std::ranges::count_if(experts, [&](ExpertId e) { return home(e) == rank; }));
      if (entries > 0) wire.add(8 * entries);
      wire.add(56, 2);  // a dispatch word there, a combine word back
      wire.add(static_cast<uint64_t>(layout.result_bytes()), entries);
    }
  }
}

Wire expected_wire(const SimGroup& group) {
  const Scenario& s = group.scenario;
  const fabric::Shape shape = group.shape();
  Wire wire;
  for (int32_t step = 0; step < s.num_steps; ++step) {
    for (int32_t r = 0; r < s.num_ranks; ++r) {
      for (int32_t other = 0; other < s.num_ranks; ++other)
        if (!shape.same_node(RankId{r}, RankId{other})) wire.add(56);  // step word
      for (int32_t layer = 0; layer < s.num_layers; ++layer) {
        std::vector<ExpertId> experts;
        std::vector<float> weights;
        scenario_routing(s, scenario_key(s, step, layer, RankId{r}),
                         scenario_tokens(s, step, RankId{r}), experts, weights);
        add_exchange(group, experts, r, wire);
      }
    }
  }
  return wire;
}

TEST(FabricAllToAll, OverTcpGivesTheBitsOfTheJudgeAndSendsExactlyWhatItMust) {
  for (const std::vector<int>& nodes : std::vector<std::vector<int>>{
           {0, 1}, {0, 0, 1, 1}, {0, 0, 0, 1, 1}, {0, 1, 1, 1}, {0, 0, 1, 1, 2, 2, 3, 3}}) {
    const Scenario scenario{.seed = 31,
                            .num_ranks = static_cast<int32_t>(nodes.size()),
                            .num_experts = 12,
                            .top_k = 4,
                            .hidden = 512,
                            .num_steps = 6,
                            .tokens_max = 24,
                            .formats = {RowFormat::kBf16, RowFormat::kBf16, RowFormat::kF32}};
    SimGroup group = sim_group(scenario, nodes);
    const Rows expected = reference_rows(scenario);
    const ThreadsOutcome outcome = run_on_threads(group);
    EXPECT_EQ(outcome.rows, expected);
    const Wire wire = expected_wire(group);
    EXPECT_EQ(outcome.wire_bytes, wire.bytes);
    EXPECT_EQ(outcome.wire_frames, wire.frames);
    group.options.low_latency_tokens_max = 0;
    group.options.chunk_tokens = 5;
    EXPECT_EQ(run_on_threads(group).rows, expected);
  }
}

// The rows themselves: one for each (token, node) and one for each (token, k) that comes home.
uint64_t row_bytes_of(const SimGroup& group) {
  const fabric::Shape shape = group.shape();
  const ExchangeLayout layout(group.options.shape, shape.node_of);
  const Scenario& s = group.scenario;
  uint64_t bytes = 0;
  for (int32_t step = 0; step < s.num_steps; ++step) {
    for (int32_t r = 0; r < s.num_ranks; ++r) {
      for (int32_t layer = 0; layer < s.num_layers; ++layer) {
        std::vector<ExpertId> experts;
        std::vector<float> weights;
        scenario_routing(s, scenario_key(s, step, layer, RankId{r}), s.tokens_max, experts,
                         weights);
        std::set<std::pair<size_t, NodeId>> rows;
        for (size_t i = 0; i < experts.size(); ++i) {
          const RankId home =
              group.placement.layer(LayerId{layer}).replicas(experts[i]).front().rank;
          if (shape.same_node(home, RankId{r})) continue;
          rows.insert({i / static_cast<size_t>(s.top_k), shape.node_of[subscript(home)]});
          bytes += static_cast<uint64_t>(layout.result_bytes());
        }
        bytes += rows.size() * static_cast<uint64_t>(layout.row_bytes());
      }
    }
  }
  return bytes;
}

TEST(FabricAllToAll, OverTcpSendsAtMostFivePercentMoreThanTheRowsThemselves) {
  for (const std::vector<int>& nodes :
       std::vector<std::vector<int>>{{0, 1}, {0, 0, 1, 1}, {0, 0, 1, 1, 2, 2, 3, 3}}) {
    for (const RowFormat dispatch : {RowFormat::kBf16, RowFormat::kFp8}) {
      for (const int64_t tokens : {8, 32}) {
        const Scenario scenario{.seed = 5,
                                .num_ranks = static_cast<int32_t>(nodes.size()),
                                .num_experts = 64,
                                .top_k = 8,
                                .hidden = 2048,
                                .num_layers = 3,
                                .num_steps = 1,
                                .tokens_max = tokens,
                                .formats = {dispatch, dispatch, RowFormat::kBf16},
                                .always_full = true};
        SimGroup group = sim_group(scenario, nodes);
        SCOPED_TRACE(fmt::format("{} ranks, {} tokens, {}", nodes.size(), tokens, name(dispatch)));
        const double allowed = 1.05 * static_cast<double>(row_bytes_of(group));
        const ThreadsOutcome low_latency = run_on_threads(group);
        EXPECT_EQ(low_latency.wire_bytes, expected_wire(group).bytes);
        EXPECT_LE(static_cast<double>(low_latency.wire_bytes), allowed);
        group.options.low_latency_tokens_max = 0;  // high throughput, in chunks of 64
        EXPECT_LE(static_cast<double>(run_on_threads(group).wire_bytes), allowed);
      }
    }
  }
}

TEST(FabricAllToAll, CountsRowsPerExpertAndPerDestination) {
  Scenario scenario{.num_ranks = 2, .num_experts = 4, .formats = kAllF32};
  const SimGroup one = sim_group(scenario, {0, 0});
  int64_t computed = 0;
  int64_t sent = 0;
  on_every_rank(one, [&](FabricAllToAll& exchange, fabric::Fabric& fabric) -> Status {
    WD_TRY(run_scenario(scenario, exchange, one.placement, fabric.rank()));
    for (int32_t layer = 0; layer < 2; ++layer) {
      for (int32_t i = 0; i < 2; ++i) {
        computed += exchange.load().computed(LayerId{layer}, SlotId{i});
        sent += exchange.load().sent(LayerId{layer}, RankId{i});
      }
    }
    return {};
  });
  int64_t rows = 0;
  for (int32_t step = 0; step < scenario.num_steps; ++step)
    for (int32_t r = 0; r < 2; ++r)
      rows += scenario_tokens(scenario, step, RankId{r}) * scenario.top_k * scenario.num_layers;
  EXPECT_GT(rows, 0);
  EXPECT_EQ(computed, rows);
  EXPECT_EQ(sent, rows);
}

}  // namespace
}  // namespace wideep::ep
