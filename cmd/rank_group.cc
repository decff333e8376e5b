#include "cmd/rank_group.h"

#include "base/clock.h"
#include "base/hash.h"
#include "math/kernels.h"

#include <fmt/format.h>

namespace wideep::cmd {

Result<std::unique_ptr<ep::Group>> join_group(const RankOptions& rank,
                                              const model::Checkpoint& checkpoint,
                                              const model::NumericConfig& numeric,
                                              const model::LoadOptions& load,
                                              ThreadPool& pool) {
  const model::ModelConfig& config = checkpoint.config();
  if (config.num_experts() == 0)
    return invalid_argument(
        "--enable-expert-parallel: the model has no experts; its ranks have nothing to share");
  WD_ASSIGN_OR_RETURN(const std::string fingerprint, checkpoint.fingerprint());
  ep::GroupOptions options{
      .join = *rank.join,
      .exchange = {.shape = {.hidden = config.hidden_size,
                             .top_k = static_cast<int32_t>(config.router.top_k),
                             .tokens_max = load.rows_max,
                             .formats = numeric.row_formats()},
                   .shared_cache_bytes = rank.shared_cache_bytes}};
  options.join.rules = fmt::format("model {}, {}", fingerprint, numeric.describe());
  // A new membership each time the group meets: grows over restarts of the leader.
  options.join.epoch = static_cast<uint64_t>(real_clock().unix_seconds());
  options.exchange.config_hash = xxh64(std::as_bytes(std::span(options.join.rules)));
  WD_ASSIGN_OR_RETURN(
      ep::Placement placement,
      choose_placement(rank.placement,
                       static_cast<int32_t>(config.num_layers_with_draft(load.weights.draft)),
                       static_cast<int32_t>(config.num_experts()), rank.join->num_ranks));
  return ep::Group::join(options, std::move(placement), math::kernels(numeric.isa), pool);
}

std::vector<std::vector<ExpertId>> slots_of(const ep::Placement& placement,
                                            RankId rank,
                                            const model::ModelConfig& config) {
  std::vector<std::vector<ExpertId>> slots(static_cast<size_t>(placement.num_layers()));
  for (int32_t layer = 0; layer < placement.num_layers(); ++layer) {
    if (!config.is_moe(layer)) continue;
    const auto experts = placement.layer(LayerId{layer}).experts_of(rank);
    slots[static_cast<size_t>(layer)].assign(experts.begin(), experts.end());
  }
  return slots;
}

std::string describe(const fabric::Fabric& fabric) {
  const fabric::Shape& shape = fabric.shape();
  std::string nodes;
  std::string peers;
  for (int32_t r = 0; r < shape.num_ranks(); ++r) {
    nodes += fmt::format(" {}", index(shape.node_of[static_cast<size_t>(r)]));
    if (RankId{r} == fabric.rank()) continue;
    peers += fmt::format("{}{} {}", peers.empty() ? "" : ", ", r,
                         fabric.peer_state(RankId{r}).transport);
  }
  return fmt::format("rank {} of {} (nodes{}), epoch {}: {}", index(fabric.rank()),
                     shape.num_ranks(), nodes, shape.epoch, peers);
}

}  // namespace wideep::cmd
