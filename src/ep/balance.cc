#include "ep/balance.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

// Hierarchical where the router's groups divide over the nodes, else global (the same with one node
// and one group). Ties go to the lowest index, so that every rank computes the same.
namespace wideep::ep {
namespace {

struct Packing {
  std::vector<int32_t> pack;  // [items]
  std::vector<int32_t> rank_in_pack;
};

// Items, heaviest first, each into the lightest pack that has room; packs end with equal counts.
Packing pack(std::span<const double> weights, int32_t num_packs) {
  const auto n = static_cast<int32_t>(weights.size());
  const int32_t per_pack = n / num_packs;
  Packing packing{std::vector<int32_t>(weights.size()), std::vector<int32_t>(weights.size())};
  if (per_pack == 1) {
    std::iota(packing.pack.begin(), packing.pack.end(), 0);
    return packing;
  }
  std::vector<int32_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, [&](int32_t a, int32_t b) {
    const double wa = weights[static_cast<size_t>(a)];
    const double wb = weights[static_cast<size_t>(b)];
    return wa != wb ? wa > wb : a < b;
  });
  std::vector<double> load(static_cast<size_t>(num_packs));
  std::vector<int32_t> count(static_cast<size_t>(num_packs));
  for (const int32_t item : order) {
    size_t lightest = load.size();
    for (size_t p = 0; p < load.size(); ++p)
      if (count[p] < per_pack && (lightest == load.size() || load[p] < load[lightest]))
        lightest = p;
    packing.pack[static_cast<size_t>(item)] = static_cast<int32_t>(lightest);
    packing.rank_in_pack[static_cast<size_t>(item)] = count[lightest]++;
    load[lightest] += weights[static_cast<size_t>(item)];
  }
  return packing;
}

struct Replication {
  std::vector<int32_t> expert;  // [replicas]
  std::vector<int32_t> count;   // [experts]
};

// One replica each; every further one goes to the expert with the most load per replica.
Replication replicate(std::span<const double> weights, int32_t num_replicas) {
  Replication result{std::vector<int32_t>(weights.size()), std::vector<int32_t>(weights.size(), 1)};
  std::iota(result.expert.begin(), result.expert.end(), 0);
  while (std::ssize(result.expert) < num_replicas) {
    size_t hottest = 0;
    for (size_t e = 1; e < weights.size(); ++e)
      if (weights[e] / result.count[e] > weights[hottest] / result.count[hottest]) hottest = e;
    ++result.count[hottest];
    result.expert.push_back(static_cast<int32_t>(hottest));
  }
  return result;
}

// Logical experts in node order: those of node 0 first, group by group.
std::vector<int32_t> experts_by_node(const BalanceRequest& request, int32_t groups, int32_t nodes) {
  const auto num_experts = static_cast<int32_t>(request.load.size());
  const int32_t per_group = num_experts / groups;
  std::vector<double> group_load(static_cast<size_t>(groups));
  for (int32_t e = 0; e < num_experts; ++e)
    group_load[static_cast<size_t>(e / per_group)] += request.load[static_cast<size_t>(e)];
  const Packing packing = pack(group_load, nodes);
  std::vector<int32_t> experts(request.load.size());
  for (int32_t e = 0; e < num_experts; ++e) {
    const auto g = static_cast<size_t>(e / per_group);
    const int32_t place = packing.pack[g] * (groups / nodes) + packing.rank_in_pack[g];
    experts[static_cast<size_t>(place * per_group + e % per_group)] = e;
  }
  return experts;
}

// One node's replicas onto its ranks: writes expert_of for [first_slot, first_slot + slots).
void place_node(std::span<const int32_t> experts,
                std::span<const double> load,
                int32_t num_ranks,
                std::span<ExpertId> expert_of) {
  std::vector<double> weights;
  for (const int32_t e : experts)
    weights.push_back(load[static_cast<size_t>(e)]);
  const auto num_slots = static_cast<int32_t>(expert_of.size());
  const Replication replicas = replicate(weights, num_slots);
  std::vector<double> per_replica;
  for (const int32_t e : replicas.expert)
    per_replica.push_back(weights[static_cast<size_t>(e)] / replicas.count[static_cast<size_t>(e)]);
  const Packing packing = pack(per_replica, num_ranks);
  for (size_t r = 0; r < per_replica.size(); ++r) {
    const int32_t slot = packing.pack[r] * (num_slots / num_ranks) + packing.rank_in_pack[r];
    expert_of[static_cast<size_t>(slot)] =
        ExpertId{experts[static_cast<size_t>(replicas.expert[r])]};
  }
}

bool holds(std::span<const ExpertId> slots, ExpertId expert) {
  return std::ranges::find(slots, expert) != slots.end();
}

// Exchanges a second replica on the same rank with the slot of another rank (of the same span) that
// misses it, taking the nearest in load.
void part_twins(std::span<ExpertId> expert_of,
                int32_t slots_per_rank,
                std::span<const double> per_replica) {
  const auto per_rank = static_cast<size_t>(slots_per_rank);
  const auto weight = [&](ExpertId e) { return per_replica[subscript(e)]; };
  for (size_t p = 0; p < expert_of.size(); ++p) {
    const auto own = expert_of.subspan(p / per_rank * per_rank, per_rank);
    if (!holds(own.first(p % per_rank), expert_of[p])) continue;
    size_t best = p;
    for (size_t q = 0; q < expert_of.size(); ++q) {
      const auto other = expert_of.subspan(q / per_rank * per_rank, per_rank);
      if (holds(other, expert_of[p]) || holds(own, expert_of[q])) continue;
      const double gap = std::abs(weight(expert_of[q]) - weight(expert_of[p]));
      if (best == p || gap < std::abs(weight(expert_of[best]) - weight(expert_of[p]))) best = q;
    }
    std::swap(expert_of[p], expert_of[best]);
  }
}

Status check(const BalanceRequest& request) {
  const auto num_experts = static_cast<int32_t>(request.load.size());
  if (num_experts < 1 || num_experts > kExpertsMax)
    return invalid_argument("{} experts, 1 to {} allowed", num_experts, kExpertsMax);
  if (request.num_ranks < 1 || request.num_slots % request.num_ranks != 0)
    return invalid_argument("{} slots do not divide over {} ranks", request.num_slots,
                            request.num_ranks);
  if (request.num_slots < num_experts || request.num_slots > kExpertsMax * kExpertsMax)
    return invalid_argument("{} slots for {} experts", request.num_slots, num_experts);
  if (request.num_nodes < 1 || request.num_ranks % request.num_nodes != 0)
    return invalid_argument("{} ranks do not divide over {} nodes", request.num_ranks,
                            request.num_nodes);
  if (request.num_groups < 1 || num_experts % request.num_groups != 0)
    return invalid_argument("{} experts do not divide into {} groups", num_experts,
                            request.num_groups);
  for (const double load : request.load)
    if (!std::isfinite(load) || load < 0) return invalid_argument("load {} of an expert", load);
  return {};
}

}  // namespace

Result<LayerPlacement> balance(const BalanceRequest& request) {
  WD_TRY(check(request));
  const bool hierarchical = request.num_groups % request.num_nodes == 0;
  const int32_t nodes = hierarchical ? request.num_nodes : 1;
  const int32_t groups = hierarchical ? request.num_groups : 1;
  const std::vector<int32_t> experts = experts_by_node(request, groups, nodes);
  const auto experts_per_node = experts.size() / static_cast<size_t>(nodes);
  const auto slots_per_node = static_cast<size_t>(request.num_slots / nodes);
  std::vector<ExpertId> expert_of(static_cast<size_t>(request.num_slots), kNoExpert);
  for (size_t node = 0; node < static_cast<size_t>(nodes); ++node) {
    const auto slots = std::span(expert_of).subspan(node * slots_per_node, slots_per_node);
    place_node(std::span(experts).subspan(node * experts_per_node, experts_per_node), request.load,
               request.num_ranks / nodes, slots);
    std::vector<double> per_replica(request.load.begin(), request.load.end());
    for (size_t e = 0; e < per_replica.size(); ++e) {
      const auto count = std::ranges::count(slots, ExpertId{static_cast<int32_t>(e)});
      per_replica[e] /= static_cast<double>(std::max<int64_t>(count, 1));
    }
    part_twins(slots, request.num_slots / request.num_ranks, per_replica);
  }
  return LayerPlacement::create(static_cast<int32_t>(request.load.size()), request.num_ranks,
                                std::move(expert_of));
}

}  // namespace wideep::ep
