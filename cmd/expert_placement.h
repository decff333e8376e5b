// Where the experts of a group live: in order, or by what a former run has recorded.
#pragma once

#include "base/result.h"
#include "ep/placement.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace wideep::cmd {

struct PlacementOptions {
  // What GET /expert_load said of a former run: ranks then come out even (ep/balance.h); "": none.
  std::string load_file;
  // Slots for second copies of the busiest experts, over all ranks; rounded up so that all ranks
  // have equally many slots.
  int64_t num_redundant_experts = 0;
};

// kInvalidArgument: the file is no such document, or of another model.
Result<ep::Placement> choose_placement(const PlacementOptions& options,
                                       int32_t num_layers,
                                       int32_t num_experts,
                                       int32_t num_ranks);

// num_redundant_experts of --eplb-config, vLLM's JSON; "" is 0. kInvalidArgument for what is no
// such object and, by name, for keys that are not implemented.
Result<int64_t> parse_eplb_config(std::string_view json);

}  // namespace wideep::cmd
