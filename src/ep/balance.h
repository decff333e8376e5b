// A placement for a known load: DeepSeek's EPLB, so that a recorded load file gives the layout that
// its users expect.
#pragma once

#include "base/result.h"
#include "ep/placement.h"

#include <cstdint>
#include <span>

namespace wideep::ep {

// How many tokens chose each expert of one layer, and where it may go.
struct BalanceRequest {
  std::span<const double> load;  // [num_experts]
  int32_t num_ranks = 1;
  int32_t num_nodes = 1;
  int32_t num_groups = 1;  // expert groups of the router; used when they divide over the nodes
  int32_t num_slots = 0;   // of the whole group, a multiple of num_ranks, >= num_experts
};

// The load-balancing placement of DeepSeek's EPLB: hot experts get more replicas, and replicas are
// spread so that ranks come out even. Where it put one expert twice on a rank, which serves nobody,
// the second is exchanged with another rank's if that is possible.
Result<LayerPlacement> balance(const BalanceRequest& request);

}  // namespace wideep::ep
