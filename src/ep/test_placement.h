// For tests: a placement as one list.
#pragma once

#include "ep/placement.h"

#include <vector>

namespace wideep::ep {

// The experts of all slots, rank by rank; -1 where a slot is empty.
inline std::vector<int32_t> experts(const LayerPlacement& placement) {
  std::vector<int32_t> all;
  for (int32_t rank = 0; rank < placement.num_ranks(); ++rank)
    for (int32_t slot = 0; slot < placement.slots_per_rank(); ++slot)
      all.push_back(index(placement.expert_at({RankId{rank}, SlotId{slot}})));
  return all;
}

}  // namespace wideep::ep
