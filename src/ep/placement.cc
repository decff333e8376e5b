#include "ep/placement.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/rounding.h"

#include <algorithm>

namespace wideep::ep {

Result<LayerPlacement> LayerPlacement::create(int32_t num_experts,
                                              int32_t num_ranks,
                                              std::vector<ExpertId> expert_of) {
  if (num_experts < 1 || num_experts > kExpertsMax)
    return invalid_argument("{} experts, 1 to {} allowed", num_experts, kExpertsMax);
  if (num_ranks < 1 || expert_of.empty() || std::ssize(expert_of) % num_ranks != 0)
    return invalid_argument("{} slots do not divide over {} ranks", expert_of.size(), num_ranks);
  const int64_t slots_per_rank = std::ssize(expert_of) / num_ranks;
  if (slots_per_rank > kSlotsPerRankMax)
    return invalid_argument("{} slots per rank, at most {}", slots_per_rank, kSlotsPerRankMax);
  LayerPlacement placement;
  placement.num_ranks_ = num_ranks;
  placement.num_filled_.resize(static_cast<size_t>(num_ranks));
  std::vector<std::vector<SlotAddress>> replicas(static_cast<size_t>(num_experts));
  for (int64_t p = 0; p < std::ssize(expert_of); ++p) {
    const ExpertId expert = expert_of[static_cast<size_t>(p)];
    if (expert == kNoExpert) continue;
    if (index(expert) < 0 || index(expert) >= num_experts)
      return invalid_argument("slot {} holds expert {} of {}", p, index(expert), num_experts);
    const SlotAddress address{RankId{static_cast<int32_t>(p / slots_per_rank)},
                              SlotId{static_cast<int32_t>(p % slots_per_rank)}};
    size_t& num_filled = placement.num_filled_[subscript(address.rank)];
    if (static_cast<int64_t>(num_filled) != index(address.slot))
      return invalid_argument("slot {} is filled, the one before it is empty", p);
    ++num_filled;
    replicas[subscript(expert)].push_back(address);
  }
  placement.first_replica_.push_back(0);
  for (int32_t e = 0; e < num_experts; ++e) {
    const auto& own = replicas[static_cast<size_t>(e)];
    if (own.empty()) return invalid_argument("expert {} has no slot", e);
    placement.replicas_.insert(placement.replicas_.end(), own.begin(), own.end());
    placement.first_replica_.push_back(placement.replicas_.size());
  }
  placement.expert_of_ = std::move(expert_of);
  return placement;
}

LayerPlacement LayerPlacement::linear(int32_t num_experts, int32_t num_ranks) {
  const int32_t slots_per_rank = divide_up(num_experts, num_ranks);
  std::vector<ExpertId> expert_of(static_cast<size_t>(slots_per_rank * num_ranks), kNoExpert);
  int32_t expert = 0;
  for (int32_t rank = 0; rank < num_ranks; ++rank) {
    const int32_t own = num_experts / num_ranks + (rank < num_experts % num_ranks ? 1 : 0);
    for (int32_t slot = 0; slot < own; ++slot)
      expert_of[static_cast<size_t>(rank * slots_per_rank + slot)] = ExpertId{expert++};
  }
  Result<LayerPlacement> placement = create(num_experts, num_ranks, std::move(expert_of));
  WD_CHECK(placement.has_value());
  return *std::move(placement);
}

Placement::Placement(std::vector<LayerPlacement> layers) : layers_(std::move(layers)) {
  WD_CHECK(!layers_.empty());
  for (const LayerPlacement& layer : layers_)
    WD_CHECK(layer.num_ranks() == layers_.front().num_ranks());
}

int32_t Placement::slots_per_rank_max() const {
  int32_t most = 0;
  for (const LayerPlacement& layer : layers_)
    most = std::max(most, layer.slots_per_rank());
  return most;
}

uint64_t Placement::hash() const {
  uint64_t hash = 0;
  for (const LayerPlacement& layer : layers_) {
    for (int32_t rank = 0; rank < layer.num_ranks(); ++rank)
      hash = xxh64(std::as_bytes(layer.experts_of(RankId{rank})), hash);
  }
  return hash;
}

}  // namespace wideep::ep
