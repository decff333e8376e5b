// The real fabric: ranks are processes (or threads). Ranks of one node share memory; other nodes
// are reached over links.
//
// Puts and signals to ranks of this node are stores into their arenas. Each rank has one control
// thread: it beats the heart of this rank in the arenas of all others, notices when a connection
// ends or a heart stops, and tells all others whom it holds for lost, so that everybody names the
// same rank.
#pragma once

#include "base/thread_pool.h"
#include "fabric/arena.h"
#include "fabric/control_thread.h"
#include "fabric/fabric.h"
#include "fabric/handover.h"
#include "fabric/peer_table.h"

#include <chrono>
#include <memory>
#include <vector>

namespace wideep::fabric {

// How long a wait turns before it sleeps. With more ranks on the node than cores turning only keeps
// the others from working.
struct WaitPolicy {
  Duration spin = std::chrono::microseconds{20};
  Duration yield = std::chrono::microseconds{200};
  Duration sleep_max = std::chrono::seconds{1};  // then look again, though nobody rang

  static WaitPolicy for_node(int32_t ranks_here, int32_t cores);
};

struct GroupFabricOptions {
  WaitPolicy wait;
  Duration liveness_deadline = std::chrono::seconds{3};  // of silence, then a peer is lost
};

class GroupFabric final : public Fabric {
  struct Checked {};  // what only create() can hand in

 public:
  static Result<std::unique_ptr<GroupFabric>> create(const Shape& shape,
                                                     RankId rank,
                                                     LocalPeers local,
                                                     const GroupFabricOptions& options);
  GroupFabric(Checked checked,
              const Shape& shape,
              RankId rank,
              LocalPeers local,
              const GroupFabricOptions& options);
  // Says goodbye to all.
  ~GroupFabric() override;

  RankId rank() const override { return rank_; }

  const Shape& shape() const override { return shape_; }

  const Clock& clock() const override { return real_clock(); }

  std::span<std::byte> arena() override { return mapped(rank_); }

  std::span<std::byte> mapped(RankId peer) override { return peer_at(peer).arena.bytes(); }

  Status put(RankId peer, int64_t offset, std::span<const std::byte> bytes) override;
  Status signal(RankId peer, ChannelId channel, const Signal& signal) override;

  std::optional<Signal> poll(RankId peer, ChannelId channel) const override {
    return own_.line(channel, peer).load(shape_.epoch);
  }

  Status wait(const Awaited& awaited, TimePoint deadline) override;

  void wake() override { own_.bell().ring(); }

  PeerState peer_state(RankId peer) const override;

  WireCounters wire() const override { return {}; }

 private:
  LocalPeer& peer_at(RankId rank) { return local_.peers[static_cast<size_t>(index(rank))]; }

  const LocalPeer& peer_at(RankId rank) const {
    return local_.peers[static_cast<size_t>(index(rank))];
  }

  // The control thread.
  Status start();
  Status watch_peer(RankId peer);
  void hear(RankId peer);
  void believe(const ControlMessage& message);
  void hold_for_lost(RankId peer, const std::string& reason);
  void tell_all(const ControlMessage& message);
  void beat();

  const Shape shape_;
  const RankId rank_;
  const GroupFabricOptions options_;
  LocalPeers local_;
  Arena own_;
  PeerTable table_;
  int64_t last_beat_ns_ = 0;  // control thread
  ControlThread control_;
};

}  // namespace wideep::fabric
