// Where experts live. A logical expert has one or more replicas; each takes a slot, a place on a
// rank. Every rank has the same number of slots per layer; the last ones of a rank may be empty.
//
// Values; shared by all ranks of an epoch, compared by hash() at rendezvous.
#pragma once

#include "base/ids.h"
#include "base/result.h"

#include <cstdint>
#include <span>
#include <vector>

namespace wideep::ep {

inline constexpr ExpertId kNoExpert{-1};
inline constexpr int32_t kExpertsMax = 4096;
inline constexpr int32_t kSlotsPerRankMax = 4096;

// A slot of the group: `slot` counts on its rank, from 0.
struct SlotAddress {
  RankId rank{};
  SlotId slot{};

  bool operator==(const SlotAddress&) const = default;
};

// One layer's experts over the group.
class LayerPlacement {
 public:
  // expert_of: [num_ranks * slots_per_rank], kNoExpert for an empty slot. Every expert needs a
  // slot; on a rank empty slots stand last.
  static Result<LayerPlacement> create(int32_t num_experts,
                                       int32_t num_ranks,
                                       std::vector<ExpertId> expert_of);
  // Consecutive experts on each rank, one slot each; the first ranks hold one more where it does
  // not come out even. Example, 8 experts on 3 ranks: 0 1 2 | 3 4 5 | 6 7 -.
  static LayerPlacement linear(int32_t num_experts, int32_t num_ranks);

  int32_t num_experts() const { return static_cast<int32_t>(first_replica_.size()) - 1; }

  int32_t num_ranks() const { return num_ranks_; }

  int32_t slots_per_rank() const { return static_cast<int32_t>(expert_of_.size()) / num_ranks_; }

  ExpertId expert_at(SlotAddress address) const {
    return expert_of_[static_cast<size_t>(index(address.rank) * slots_per_rank() +
                                          index(address.slot))];
  }

  // Experts of one rank by slot, without the empty slots behind them.
  std::span<const ExpertId> experts_of(RankId rank) const {
    const auto r = subscript(rank);
    return std::span(expert_of_).subspan(r * static_cast<size_t>(slots_per_rank()), num_filled_[r]);
  }

  // Where an expert lives, by rank ascending; never empty.
  std::span<const SlotAddress> replicas(ExpertId expert) const {
    const auto e = subscript(expert);
    return std::span(replicas_).subspan(first_replica_[e],
                                        first_replica_[e + 1] - first_replica_[e]);
  }

  bool operator==(const LayerPlacement&) const = default;

 private:
  int32_t num_ranks_ = 0;
  std::vector<ExpertId> expert_of_;
  std::vector<size_t> num_filled_;     // slots of each rank
  std::vector<SlotAddress> replicas_;  // grouped by expert
  std::vector<size_t> first_replica_;  // [num_experts + 1]
};

// All layers of a model. Layers without experts have a placement too; nobody asks for it.
class Placement {
 public:
  // layers: at least one, all for the same ranks.
  explicit Placement(std::vector<LayerPlacement> layers);

  static Placement linear(int32_t num_layers, int32_t num_experts, int32_t num_ranks) {
    return Placement(std::vector(static_cast<size_t>(num_layers),
                                 LayerPlacement::linear(num_experts, num_ranks)));
  }

  const LayerPlacement& layer(LayerId layer) const { return layers_[subscript(layer)]; }

  int32_t num_layers() const { return static_cast<int32_t>(layers_.size()); }

  int32_t num_ranks() const { return layers_.front().num_ranks(); }

  int32_t slots_per_rank_max() const;
  uint64_t hash() const;

 private:
  std::vector<LayerPlacement> layers_;
};

}  // namespace wideep::ep
