// How an engine becomes one rank of a group: where its experts are, and its end of the exchange.
#pragma once

#include "base/result.h"
#include "base/thread_pool.h"
#include "cmd/expert_placement.h"
#include "ep/group.h"
#include "fabric/join.h"
#include "model/checkpoint.h"
#include "model/load_model.h"
#include "model/numeric_config.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace wideep::cmd {

struct RankOptions {
  int32_t number = 0;       // of the group, or among ranks that share nothing
  int32_t local_index = 0;  // among the ranks of this host, which share its cores
  int32_t num_local = 1;
  int64_t shared_cache_bytes = 0;           // see ep::ExchangeOptions
  std::optional<fabric::JoinOptions> join;  // none: it holds all experts itself
  PlacementOptions placement;
};

// Meets the other ranks; all must have the same model, numbers and limits. Blocks until they are
// there: see fabric::join. `rank.join` is set.
Result<std::unique_ptr<ep::Group>> join_group(const RankOptions& rank,
                                              const model::Checkpoint& checkpoint,
                                              const model::NumericConfig& numeric,
                                              const model::LoadOptions& load,
                                              ThreadPool& pool);

// The experts that `rank` holds, for model::WeightOptions::slots: [layer][slot].
std::vector<std::vector<ExpertId>> slots_of(const ep::Placement& placement,
                                            RankId rank,
                                            const model::ModelConfig& config);

// "rank 1 of 4 (nodes 0 0 1 1), epoch 1732434: 0 shm, 2 tcp, 3 tcp": which transport each peer got.
std::string describe(const fabric::Fabric& fabric);

}  // namespace wideep::cmd
