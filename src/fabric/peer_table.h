// What a rank knows of the life of its peers. Written by the control thread, read by all.
#pragma once

#include "fabric/fabric.h"

#include <atomic>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace wideep::fabric {

class PeerTable {
 public:
  explicit PeerTable(int32_t num_ranks) : peers_(static_cast<size_t>(num_ranks)) {}

  // Both are for good: of a rank that is gone already nothing changes.
  void set_lost(RankId rank, std::string reason);
  void set_left(RankId rank);

  // How many are lost or have left: one load, for the waiting loop.
  int32_t num_gone() const { return num_gone_.load(std::memory_order_acquire); }

  // Why a wait for `missing` cannot succeed: the first that was lost, or one of them that has left.
  std::optional<RankId> cause_of_failure(FunctionRef<std::vector<RankId>()> missing) const;

  PeerState::Life life(RankId rank) const;
  std::string reason(RankId rank) const;

 private:
  struct Peer {
    PeerState::Life life = PeerState::Life::kAlive;
    std::string reason;
  };

  Peer& at(RankId rank) { return peers_[subscript(rank)]; }

  const Peer& at(RankId rank) const { return peers_[subscript(rank)]; }

  mutable std::mutex mutex_;
  std::vector<Peer> peers_;
  std::optional<RankId> first_lost_;
  std::atomic<int32_t> num_gone_{0};
};

}  // namespace wideep::fabric
