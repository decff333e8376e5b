// A group of ranks in simulation around one scenario, and what the judge says about it.
#pragma once

#include "ep/fabric_all_to_all.h"
#include "ep/reference_all_to_all.h"
#include "ep/test_scenario.h"
#include "fabric/group_fabric.h"
#include "fabric/sim.h"
#include "fabric/test_links.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace wideep::ep {

using Rows = std::vector<std::vector<float>>;  // [rank], what run_scenario returns

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// What the judge says.
inline Rows reference_rows(const Scenario& scenario) {
  const Placement placement =
      Placement::linear(scenario.num_layers, scenario.num_experts, scenario.num_ranks);
  ReferenceBoard board(placement, scenario.formats);
  Rows rows(static_cast<size_t>(scenario.num_ranks));
  std::vector<std::thread> threads;
  for (int32_t r = 0; r < scenario.num_ranks; ++r) {
    threads.emplace_back([&, r] {
      ReferenceAllToAll exchange(board, RankId{r});
      auto result = run_scenario(scenario, exchange, placement, RankId{r});
      EXPECT_TRUE(result.has_value()) << result.error().message;
      if (result) rows[static_cast<size_t>(r)] = *std::move(result);
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  return rows;
}

struct SimGroup {
  Scenario scenario;
  Placement placement = Placement::linear(1, 1, 1);
  std::vector<int> nodes;
  ExchangeOptions options;
  fabric::SimOptions sim;

  fabric::Shape shape() const {
    fabric::Shape shape{.num_channels = kNumChannels};
    for (const int node : nodes)
      shape.node_of.push_back(NodeId{node});
    shape.arena_bytes = ExchangeLayout(options.shape, shape.node_of).arena_bytes();
    return shape;
  }
};

inline SimGroup sim_group(const Scenario& scenario, std::vector<int> nodes) {
  SimGroup group{
      .scenario = scenario,
      .placement = Placement::linear(scenario.num_layers, scenario.num_experts, scenario.num_ranks),
      .nodes = std::move(nodes)};
  group.options.shape = {.hidden = scenario.hidden,
                         .top_k = scenario.top_k,
                         .tokens_max = scenario.tokens_max,
                         .formats = scenario.formats};
  group.sim.seed = scenario.seed;
  return group;
}

struct Outcome {
  Rows rows;
  fabric::SimReport report;
};

using Body = std::function<Status(FabricAllToAll&, fabric::Fabric&)>;

inline fabric::SimReport on_every_rank(const SimGroup& group, const Body& body) {
  return fabric::simulate(group.shape(), group.sim, [&](fabric::Fabric& fabric) -> Status {
    ThreadPool pool({.num_threads = 1});
    WD_ASSIGN_OR_RETURN(auto exchange,
                        FabricAllToAll::create(fabric, group.placement, math::reference_kernels(),
                                               pool, group.options));
    return body(*exchange, fabric);
  });
}

inline Outcome run(const SimGroup& group) {
  Outcome outcome{.rows = Rows(static_cast<size_t>(group.scenario.num_ranks))};
  outcome.report =
      on_every_rank(group, [&](FabricAllToAll& exchange, fabric::Fabric& fabric) -> Status {
        WD_ASSIGN_OR_RETURN(outcome.rows[subscript(fabric.rank())],
                            run_scenario(group.scenario, exchange, group.placement, fabric.rank()));
        return {};
      });
  return outcome;
}

// One rank of a group over any fabric, with this machine's kernels: rows are encoded, streamed and
// summed to the same bits at every level.
inline Result<std::vector<float>> run_on(fabric::Fabric& fabric, const SimGroup& group) {
  ThreadPool pool({.num_threads = 1});
  WD_ASSIGN_OR_RETURN(auto exchange, FabricAllToAll::create(fabric, group.placement,
                                                            math::kernels(math::detect_isa()), pool,
                                                            group.options));
  return run_scenario(group.scenario, *exchange, group.placement, fabric.rank());
}

struct ThreadsOutcome {
  Rows rows;
  uint64_t wire_bytes = 0;  // of all ranks
  uint64_t wire_frames = 0;
};

// The same over shared memory and, between nodes, TCP; ranks are threads.
inline ThreadsOutcome run_on_threads(const SimGroup& group) {
  const fabric::Shape shape = group.shape();
  auto local = fabric::hand_over_in_process(shape);
  EXPECT_TRUE(local.has_value());
  const fabric::TestListeners listeners(shape.num_ranks());
  ThreadsOutcome outcome{.rows = Rows(static_cast<size_t>(shape.num_ranks()))};
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (size_t r = 0; r < outcome.rows.size(); ++r) {
    threads.emplace_back([&, r] {
      const RankId rank{static_cast<int32_t>(r)};
      auto links = listeners.link(shape, rank, 1);
      ASSERT_TRUE(links.has_value()) << links.error().message;
      auto fabric =
          fabric::GroupFabric::create(shape, rank, std::move((*local)[r]), *std::move(links),
                                      {.wait = fabric::WaitPolicy::for_node(shape.num_ranks(), 1)});
      ASSERT_TRUE(fabric.has_value());
      auto result = run_on(**fabric, group);
      EXPECT_TRUE(result.has_value()) << result.error().message;
      const std::scoped_lock lock(mutex);
      if (result) outcome.rows[r] = *std::move(result);
      outcome.wire_bytes += (*fabric)->wire().bytes_sent;
      outcome.wire_frames += (*fabric)->wire().frames_sent;
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  return outcome;
}

}  // namespace wideep::ep
