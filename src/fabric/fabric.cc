#include "fabric/fabric.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iterator>

namespace wideep::fabric {
namespace {

int64_t milliseconds(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

// "rank 2 (last sign of life 12 ms ago), rank 5 (…)", at most eight of them.
std::string list_missing(const Fabric& fabric, std::span<const RankId> ranks) {
  constexpr size_t kNamed = 8;
  std::string text;
  for (size_t i = 0; i < std::min(ranks.size(), kNamed); ++i) {
    fmt::format_to(std::back_inserter(text), "{}rank {} (last sign of life {} ms ago)",
                   i == 0 ? "" : ", ", index(ranks[i]),
                   milliseconds(fabric.peer_state(ranks[i]).silence));
  }
  if (ranks.size() > kNamed)
    fmt::format_to(std::back_inserter(text), " and {} more", ranks.size() - kNamed);
  return text.empty() ? "nobody" : text;
}

}  // namespace

bool Shape::same_node(RankId a, RankId b) const {
  return node_of[subscript(a)] == node_of[subscript(b)];
}

RankId Shape::door(RankId source, RankId target) const {
  std::vector<RankId> local;
  for (int32_t rank = 0; rank < num_ranks(); ++rank)
    if (same_node(target, RankId{rank})) local.push_back(RankId{rank});
  return local[subscript(source) % local.size()];
}

std::vector<std::vector<RankId>> Shape::ranks_by_node() const {
  std::vector<std::vector<RankId>> nodes;
  for (int32_t rank = 0; rank < num_ranks(); ++rank) {
    const auto home = std::ranges::find_if(
        nodes, [&](const auto& ranks) { return same_node(ranks.front(), RankId{rank}); });
    if (home != nodes.end()) {
      home->push_back(RankId{rank});
    } else {
      nodes.push_back({RankId{rank}});
    }
  }
  return nodes;
}

Status validate(const Shape& shape) {
  if (shape.num_ranks() < 1 || shape.num_ranks() > kRanksMax)
    return invalid_argument("{} ranks, 1 to {} allowed", shape.num_ranks(), kRanksMax);
  if (shape.num_channels < 1 || shape.num_channels > kChannelsMax)
    return invalid_argument("{} channels, 1 to {} allowed", shape.num_channels, kChannelsMax);
  if (shape.arena_bytes < 0 || shape.arena_bytes > kArenaBytesMax)
    return invalid_argument("arena of {} bytes, at most {}", shape.arena_bytes, kArenaBytesMax);
  if (shape.epoch == 0) return invalid_argument("epoch 0 is never used");
  return {};
}

Error wait_error(const Fabric& fabric, const Awaited& awaited, const RankId* lost) {
  const std::vector<RankId> missing = awaited.missing();
  if (lost == nullptr) {
    return {ErrorCode::kTimeout,
            fmt::format("rank {}: {}: deadline passed, missing: {}", index(fabric.rank()),
                        awaited.what(), list_missing(fabric, missing))};
  }
  const PeerState state = fabric.peer_state(*lost);
  std::string message = fmt::format("rank {}: {}: rank {} lost ({}, last sign of life {} ms ago)",
                                    index(fabric.rank()), awaited.what(), index(*lost),
                                    state.reason, milliseconds(state.silence));
  if (!missing.empty()) message += "; missing: " + list_missing(fabric, missing);
  return {ErrorCode::kPeerLost, std::move(message)};
}

}  // namespace wideep::fabric
