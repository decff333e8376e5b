#include "fabric/peer_table.h"

#include <utility>

namespace wideep::fabric {

using Life = PeerState::Life;

void PeerTable::set_lost(RankId rank, std::string reason) {
  const std::scoped_lock lock(mutex_);
  if (at(rank).life != Life::kAlive) return;
  at(rank) = {Life::kLost, std::move(reason)};
  if (!first_lost_) first_lost_ = rank;
  num_gone_.fetch_add(1, std::memory_order_release);
}

void PeerTable::set_left(RankId rank) {
  const std::scoped_lock lock(mutex_);
  if (at(rank).life != Life::kAlive) return;
  at(rank) = {Life::kLeft, "left"};
  num_gone_.fetch_add(1, std::memory_order_release);
}

std::optional<RankId> PeerTable::cause_of_failure(
    FunctionRef<std::vector<RankId>()> missing) const {
  const std::scoped_lock lock(mutex_);
  if (first_lost_) return first_lost_;
  for (const RankId rank : missing())
    if (at(rank).life == Life::kLeft) return rank;
  return std::nullopt;
}

Life PeerTable::life(RankId rank) const {
  const std::scoped_lock lock(mutex_);
  return at(rank).life;
}

std::string PeerTable::reason(RankId rank) const {
  const std::scoped_lock lock(mutex_);
  return at(rank).reason;
}

}  // namespace wideep::fabric
