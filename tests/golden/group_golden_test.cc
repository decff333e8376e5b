// The forward pass over groups of ranks: the golden values with the experts spread over 1, 2, 3 and
// 4 ranks, and the bits of one rank on every rank of a group, whatever the others compute.
#include "ep/fabric_all_to_all.h"
#include "ep/local_all_to_all.h"
#include "fabric/sim.h"
#include "model/golden.h"
#include "model/golden_run.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <optional>

namespace wideep::model {
namespace {

constexpr int64_t kRowsMax = 64;
constexpr int64_t kBlockTokens = 16;

std::string folder(std::string_view name) {
  return fmt::format("{}/tests/golden/data/{}", WIDEEP_SOURCE_DIR, name);
}

LoadOptions load_options(math::Precision precision, std::string_view set) {
  LoadOptions load{.rows_max = kRowsMax, .block_tokens = kBlockTokens};
  load.weights.precision = precision;
  load.weights.draft = set == "dsv3-tiny-mtp";
  return load;
}

// What a rank of a simulated group has: its share of the model and its end of the exchange.
struct Rank {
  ThreadPool pool{{.num_threads = 1}};
  std::unique_ptr<DecoderModel> model;
  std::unique_ptr<ep::FabricAllToAll> all_to_all;
};

// Runs `body` on every rank of a group whose node of rank r is nodes[r].
fabric::SimReport on_every_rank(std::string_view set,
                                const LoadOptions& load,
                                const std::vector<int>& nodes,
                                FunctionRef<Status(Rank&, RankId)> body) {
  const Checkpoint checkpoint = *Checkpoint::open(folder(set), {.draft = load.weights.draft});
  const ModelConfig& config = checkpoint.config();
  const NumericConfig numeric = *resolve_numeric(checkpoint, load);
  const auto num_ranks = static_cast<int32_t>(nodes.size());
  const auto num_layers = static_cast<int32_t>(config.num_layers_with_draft(load.weights.draft));
  const auto placement =
      ep::Placement::linear(num_layers, static_cast<int32_t>(config.num_experts()), num_ranks);
  const ep::ExchangeOptions options{.shape = {.hidden = config.hidden_size,
                                              .top_k = static_cast<int32_t>(config.router.top_k),
                                              .tokens_max = kRowsMax,
                                              .formats = numeric.row_formats()},
                                    .low_latency_tokens_max = 32};
  fabric::Shape shape{.num_channels = ep::kNumChannels};
  for (const int node : nodes)
    shape.node_of.push_back(NodeId{node});
  shape.arena_bytes = ep::ExchangeLayout(options.shape, shape.node_of).arena_bytes();
  return fabric::simulate(shape, {.seed = 11}, [&](fabric::Fabric& fabric) -> Status {
    Rank rank;
    LoadOptions mine = load;
    mine.weights.slots.resize(static_cast<size_t>(num_layers));
    for (int32_t layer = 0; layer < num_layers; ++layer) {
      if (!config.is_moe(layer)) continue;
      const auto experts = placement.layer(LayerId{layer}).experts_of(fabric.rank());
      mine.weights.slots[static_cast<size_t>(layer)].assign(experts.begin(), experts.end());
    }
    WD_ASSIGN_OR_RETURN(rank.model, load_model(folder(set), rank.pool, mine));
    WD_ASSIGN_OR_RETURN(rank.all_to_all,
                        ep::FabricAllToAll::create(fabric, placement, math::kernels(numeric.isa),
                                                   rank.pool, options));
    return body(rank, fabric.rank());
  });
}

TEST(GroupGolden, ValuesAreWithinTheirTolerancesOverTwoThreeAndFourRanks) {
  for (const std::string_view set : {"dsv3-tiny-mtp", "dsv3-tiny-fp8", "qwen3moe-tiny-bf16"}) {
    for (const std::vector<int>& nodes :
         {std::vector{0, 0}, std::vector{0, 1, 1}, std::vector{0, 0, 1, 1}}) {
      SCOPED_TRACE(fmt::format("{} on {} ranks", set, nodes.size()));
      const LoadOptions load = load_options(math::Precision::kF32, set);
      const auto report = on_every_rank(set, load, nodes, [&](Rank& rank, RankId id) -> Status {
        if (id == RankId{1}) {
          WD_ASSIGN_OR_RETURN(
              const GoldenReport golden,
              check_golden(folder(set), *rank.model, *rank.all_to_all, kBlockTokens));
          EXPECT_TRUE(golden.passed()) << golden.describe();
        }
        return follow_golden(*rank.model, *rank.all_to_all);
      });
      for (const Status& status : report.status)
        EXPECT_TRUE(status) << status.error().message;
    }
  }
}

std::vector<TokenId> tokens_of_rank(int32_t rank) {
  std::vector<TokenId> tokens;
  for (int32_t i = 0; i < 10 + 9 * rank; ++i)
    tokens.push_back(TokenId{(rank * 131 + i * 37 + 5) % 320});
  return tokens;
}

// Logits of every token, fed a few at a time; then takes part until all are done.
Result<std::vector<float>> run(Model& model, ep::AllToAll& all_to_all, int32_t rank) {
  const std::vector<TokenId> tokens = tokens_of_rank(rank);
  GoldenRunner runner(model, all_to_all, kBlockTokens);
  // The last tokens count as generated.
  GoldenSequence sequence{.num_prompt = std::ssize(tokens) - 3};
  std::vector<float> out;
  const size_t chunk = static_cast<size_t>(rank) * 3 + 4;
  for (size_t begin = 0; begin < tokens.size(); begin += chunk) {
    const GoldenRunner::Feed feed{
        &sequence, std::span(tokens).subspan(begin, std::min(chunk, tokens.size() - begin))};
    WD_ASSIGN_OR_RETURN(const auto logits, runner.forward(std::span(&feed, 1)));
    for (int64_t r = 0; r < logits.rows; ++r)
      out.insert(out.end(), logits.row(r).begin(), logits.row(r).end());
  }
  return out;
}

std::vector<float> run_alone(std::string_view set, const LoadOptions& load, int32_t rank) {
  ThreadPool pool({.num_threads = 1});
  const auto model = *load_model(folder(set), pool, load);
  const ModelConfig& config = model->config();
  ep::LocalAllToAll all_to_all(pool, math::kernels(model->numeric().isa),
                               {.formats = model->numeric().row_formats(),
                                .hidden = config.hidden_size,
                                .num_experts = config.num_experts(),
                                .top_k = config.router.top_k,
                                .tokens_max = kRowsMax});
  return *run(*model, all_to_all, rank);
}

// What else decides the bits; the number of ranks must not.
struct Numbers {
  std::string_view what;
  std::optional<math::WeightFormat> experts;
  std::optional<math::RowFormat> dispatch;
  std::optional<math::RowFormat> combine;
  bool expanded_prompts = false;
};

constexpr std::array kNumbers = {Numbers{.what = "as stored"},
                                 Numbers{.what = "int8", .experts = math::WeightFormat::kInt8},
                                 Numbers{.what = "int4", .experts = math::WeightFormat::kInt4},
                                 Numbers{.what = "fp8 there, f32 back",
                                         .dispatch = math::RowFormat::kFp8,
                                         .combine = math::RowFormat::kF32},
                                 Numbers{.what = "expanded prompts", .expanded_prompts = true}};

TEST(GroupGolden, EveryRankGetsTheBitsThatOneRankAloneGets) {
  for (const std::string_view set : {"dsv3-tiny-fp8", "dsv2-tiny-bf16"}) {
    for (const Numbers& numbers : kNumbers) {
      SCOPED_TRACE(numbers.what);
      LoadOptions load = load_options(math::Precision::kMixed, set);
      load.weights.expert_format = numbers.experts;
      load.weights.expanded_prompts = numbers.expanded_prompts;
      load.dispatch_format = numbers.dispatch;
      load.combine_format = numbers.combine;
      std::vector<std::vector<float>> alone;
      for (int32_t rank = 0; rank < 5; ++rank)
        alone.push_back(run_alone(set, load, rank));
      for (const std::vector<int>& nodes :
           {std::vector{0, 1}, std::vector{0, 0, 0}, std::vector{0, 0, 1, 1, 1}}) {
        const auto report = on_every_rank(set, load, nodes, [&](Rank& rank, RankId id) -> Status {
          const auto r = subscript(id);
          WD_ASSIGN_OR_RETURN(const std::vector<float> logits,
                              run(*rank.model, *rank.all_to_all, index(id)));
          EXPECT_TRUE(logits.size() == alone[r].size() &&
                      std::memcmp(logits.data(), alone[r].data(), logits.size() * 4) == 0)
              << set << " rank " << r << " of " << nodes.size();
          return follow_golden(*rank.model, *rank.all_to_all);
        });
        for (const Status& status : report.status)
          EXPECT_TRUE(status) << status.error().message;
      }
    }
  }
}

}  // namespace
}  // namespace wideep::model
