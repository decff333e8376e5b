// What a group of engines over a golden checkpoint is made of, what it is asked, and what one rank
// alone answers: for tests.
#pragma once

#include "engine/test_engine.h"
#include "ep/fabric_all_to_all.h"
#include "ep/local_all_to_all.h"
#include "model/load_model.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace wideep {

using engine::Outcome;
using engine::Request;

inline constexpr int64_t kRowsMax = 64;

inline std::string folder(std::string_view set) {
  return fmt::format("{}/tests/golden/data/{}", WIDEEP_SOURCE_DIR, set);
}

inline model::LoadOptions load_options(std::string_view set) {
  model::LoadOptions load{.rows_max = kRowsMax, .block_tokens = 16};
  load.weights.draft = set == "dsv3-tiny-mtp";
  return load;
}

inline engine::EngineOptions engine_options(bool speculate) {
  return {.max_model_len = 512,
          .max_num_seqs = 4,
          .max_num_batched_tokens = kRowsMax,
          .block_size = 16,
          .num_kv_blocks = 100,
          .num_speculative_tokens = speculate ? 1 : 0};
}

// What a group is made of; equal on all ranks.
struct Plan {
  std::string_view set;
  std::vector<int> nodes;  // [rank]
  bool speculate = false;
  fabric::Shape shape;
  ep::ExchangeOptions exchange;
  ep::Placement placement = ep::Placement::linear(1, 1, 1);
  model::ModelConfig config;
  model::NumericConfig numeric;
};

inline Plan plan_of(std::string_view set, std::vector<int> nodes, bool speculate) {
  Plan plan{.set = set, .nodes = std::move(nodes), .speculate = speculate};
  const model::LoadOptions load = load_options(set);
  const auto checkpoint = *model::Checkpoint::open(folder(set), {.draft = load.weights.draft});
  plan.config = checkpoint.config();
  plan.numeric = *model::resolve_numeric(checkpoint, load);
  plan.exchange = {.shape = {.hidden = plan.config.hidden_size,
                             .top_k = static_cast<int32_t>(plan.config.router.top_k),
                             .tokens_max = kRowsMax,
                             .formats = plan.numeric.row_formats()},
                   .low_latency_tokens_max = 16};
  plan.placement = ep::Placement::linear(
      static_cast<int32_t>(plan.config.num_layers_with_draft(load.weights.draft)),
      static_cast<int32_t>(plan.config.num_experts()), static_cast<int32_t>(plan.nodes.size()));
  plan.shape.num_channels = ep::kNumChannels;
  for (const int node : plan.nodes)
    plan.shape.node_of.push_back(NodeId{node});
  plan.shape.arena_bytes =
      ep::ExchangeLayout(plan.exchange.shape, plan.shape.node_of).arena_bytes();
  return plan;
}

// The options with which rank `id` loads its share of the experts.
inline model::LoadOptions load_options_of(const Plan& plan, RankId id) {
  model::LoadOptions load = load_options(plan.set);
  for (int32_t layer = 0; layer < plan.placement.num_layers(); ++layer) {
    std::vector<ExpertId>& slots = load.weights.slots.emplace_back();
    if (!plan.config.is_moe(layer)) continue;
    const auto experts = plan.placement.layer(LayerId{layer}).experts_of(id);
    slots.assign(experts.begin(), experts.end());
  }
  return load;
}

inline std::vector<Request> requests(int64_t vocab_size) {
  std::vector<Request> all;
  for (uint64_t i = 0; i < 10; ++i) {
    Request request = engine::sampled_request(i, 3 + 13 * static_cast<int64_t>(i),
                                              4 + 2 * static_cast<int64_t>(i % 6));
    request.prompt_tokens =
        engine::random_tokens(i, static_cast<int64_t>(request.prompt_tokens.size()), vocab_size);
    request.stop.ignore_eos = true;
    if (i % 2 == 0) request.sampling = {.temperature = 0, .logprobs = 2};
    all.push_back(std::move(request));
  }
  return all;
}

// On one rank that holds all experts, one after the other, without speculation.
inline std::vector<Outcome> alone(const Plan& plan, const std::vector<Request>& requests) {
  ThreadPool pool({.num_threads = 1});
  const auto model = *model::load_model(folder(plan.set), pool, load_options(plan.set));
  ep::LocalAllToAll exchange(pool, math::kernels(plan.numeric.isa),
                             {.formats = plan.numeric.row_formats(),
                              .hidden = plan.config.hidden_size,
                              .num_experts = plan.config.num_experts(),
                              .top_k = plan.config.router.top_k,
                              .tokens_max = kRowsMax});
  const auto engine = *engine::Engine::create(*model, &engine::byte_tokenizer(), real_clock(),
                                              engine_options(false));
  std::vector<Outcome> outcomes(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_TRUE(engine->submit(requests[i],
                               [&](const engine::RequestEvent& event) { outcomes[i].add(event); }));
    while (engine->has_work())
      EXPECT_TRUE(engine->step(exchange));
  }
  return outcomes;
}

}  // namespace wideep
