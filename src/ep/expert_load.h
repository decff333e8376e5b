// How many rows each expert of this rank has computed, per layer, and how many rows this rank has
// sent to whom: the numbers that balancing and pictures start from.
//
// Thread: counted by the engine thread, read by any. Costs one addition per (expert, batch).
#pragma once

#include "base/ids.h"
#include "base/json.h"
#include "base/result.h"
#include "ep/placement.h"

#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

namespace wideep::ep {

class ExpertLoad {
 public:
  ExpertLoad(int32_t num_layers, int32_t slots_per_rank, int32_t num_ranks);

  void add_computed(LayerId layer, SlotId slot, int64_t rows) {
    add(computed_, index(layer) * slots_per_rank_ + index(slot), rows);
  }

  void add_sent(LayerId layer, RankId to, int64_t rows) {
    add(sent_, index(layer) * num_ranks_ + index(to), rows);
  }

  int64_t computed(LayerId layer, SlotId slot) const {
    return get(computed_, index(layer) * slots_per_rank_ + index(slot));
  }

  int32_t num_layers() const { return num_layers_; }

  int64_t sent(LayerId layer, RankId to) const {
    return get(sent_, index(layer) * num_ranks_ + index(to));
  }

  // {"rank": 0, "row_bytes": 4096, "layers": [{"layer": 3,
  //   "experts": [{"expert": 17, "slot": 1, "rows": 120}], "sent": [40, 80]}]}
  // sent[r]: rows to rank r. Layers in which nothing happened are left out.
  Json to_json(const Placement& placement, RankId rank, int64_t row_bytes) const;

 private:
  using Counts = std::vector<std::atomic<uint64_t>>;

  // One writer: no locked instruction needed.
  static void add(Counts& counts, int32_t i, int64_t rows) {
    std::atomic<uint64_t>& count = counts[static_cast<size_t>(i)];
    count.store(count.load(std::memory_order_relaxed) + static_cast<uint64_t>(rows),
                std::memory_order_relaxed);
  }

  static int64_t get(const Counts& counts, int32_t i) {
    return static_cast<int64_t>(counts[static_cast<size_t>(i)].load(std::memory_order_relaxed));
  }

  const int32_t num_layers_;
  const int32_t slots_per_rank_;
  const int32_t num_ranks_;
  Counts computed_;  // [layers][slots]
  Counts sent_;      // [layers][ranks]
};

// Rows per layer and expert, summed over the documents of all ranks: [num_layers][num_experts],
// what balance() takes. kInvalidArgument on anything that is no such document.
Result<std::vector<std::vector<double>>> parse_expert_load(std::span<const Json> documents,
                                                           int32_t num_layers,
                                                           int32_t num_experts);

}  // namespace wideep::ep
