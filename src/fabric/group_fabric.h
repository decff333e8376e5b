// The real fabric: ranks are processes (or threads). Ranks of one node share memory; other nodes
// are reached over links.
//
// Puts and signals to ranks of this node are stores into their arenas; those to another node are
// frames on the link to it or, by UCX, writes of the network adapter. Each rank has one control
// thread: it beats the heart of this rank in the arenas of all others, writes what comes over links
// into the arenas of this node, notices when a connection ends or a heart stops, and tells all
// others whom it holds for lost, so that everybody names the same rank.
#pragma once

#include "base/thread_pool.h"
#include "fabric/arena.h"
#include "fabric/control_thread.h"
#include "fabric/fabric.h"
#include "fabric/handover.h"
#include "fabric/node_links.h"
#include "fabric/outgoing_link.h"
#include "fabric/peer_table.h"

#include <atomic>
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

inline constexpr int kBeatsPerDeadline = 6;

struct GroupFabricOptions {
  WaitPolicy wait;
  Duration liveness_deadline = std::chrono::seconds{3};  // of silence, then a peer is lost
  int64_t link_queue_bytes_max = 256 << 20;              // beyond, a put waits
  Duration send_deadline = std::chrono::seconds{60};     // for that
};

class GroupFabric final : public Fabric {
  struct Checked {};  // what only create() can hand in

 public:
  static Result<std::unique_ptr<GroupFabric>> create(const Shape& shape,
                                                     RankId rank,
                                                     LocalPeers local,
                                                     NodeLinks links,
                                                     const GroupFabricOptions& options);
  GroupFabric(Checked checked,
              const Shape& shape,
              RankId rank,
              LocalPeers local,
              const GroupFabricOptions& options);
  // Says goodbye to all. With other nodes it first serves those who still send through this rank,
  // at most for the liveness deadline.
  ~GroupFabric() override;

  RankId rank() const override { return rank_; }

  const Shape& shape() const override { return shape_; }

  const Clock& clock() const override { return real_clock(); }

  std::span<std::byte> arena() override { return own_.bytes(); }

  std::span<std::byte> mapped(RankId peer) override { return peer_at(peer).arena.bytes(); }

  Status put(RankId peer, int64_t offset, std::span<const std::byte> bytes) override;
  Status signal(RankId peer, ChannelId channel, const Signal& signal) override;

  std::optional<Signal> poll(RankId peer, ChannelId channel) const override {
    return own_.line(channel, peer).load(shape_.epoch);
  }

  Status wait(const Awaited& awaited, TimePoint deadline) override;

  void wake() override { own_.bell().ring(); }

  PeerState peer_state(RankId peer) const override;
  WireCounters wire() const override;

 private:
  class Incoming;  // a link that others send on

  LocalPeer& peer_at(RankId rank) { return local_.peers[subscript(rank)]; }

  const LocalPeer& peer_at(RankId rank) const { return local_.peers[subscript(rank)]; }

  OutgoingLink* link_to(RankId rank) const { return link_to_[subscript(rank)]; }

  UcxEndpoint* direct_to(RankId rank) const { return direct_to_[subscript(rank)]; }

  Duration beat_period() const { return options_.liveness_deadline / kBeatsPerDeadline; }

  Status await_room(const OutgoingLink& link, RankId peer);
  void flush_direct();
  void serve_until_others_leave();

  // The control thread: group_control.cc.
  Status start(NodeLinks links);
  Status add_links(NodeLinks links);
  void progress_ucx();
  void take_in(Incoming& incoming);
  Status watch_peer(RankId peer);
  Status watch_link(OutgoingLink& link, RankId door);
  void hear(RankId peer);
  void believe(const ControlMessage& message);
  void hold_for_lost(RankId peer, const std::string& reason);
  void tell_all(const ControlMessage& message);
  void tell_node(const ControlMessage& message);
  void beat();
  void heard_of(RankId source, int64_t now_ns);
  int64_t silence_ns(RankId peer, int64_t now_ns) const;

  const Shape shape_;
  const RankId rank_;
  const GroupFabricOptions options_;
  LocalPeers local_;
  Arena own_;
  PeerTable table_;
  std::unique_ptr<UcxWorker> ucx_;  // if puts and signals between nodes go by UCX
  std::vector<std::unique_ptr<UcxEndpoint>> direct_;
  std::vector<UcxEndpoint*> direct_to_;  // [num_ranks], null where a link serves, or memory
  std::vector<std::unique_ptr<OutgoingLink>> outgoing_;
  std::vector<OutgoingLink*> link_to_;  // [num_ranks], null for ranks of this node
  std::vector<std::unique_ptr<Incoming>> incoming_;
  std::atomic<bool> is_leaving_{false};
  int64_t last_beat_ns_ = 0;  // control thread
  bool ucx_retries_ = false;  // control thread
  ControlThread control_;     // last: ends before what it uses
};

}  // namespace wideep::fabric
