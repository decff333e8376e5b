#include "fabric/group_fabric.h"

#include "base/check.h"
#include "fabric/group_incoming.h"

#include <sched.h>

#include <algorithm>
#include <cstring>

namespace wideep::fabric {

WaitPolicy WaitPolicy::for_node(int32_t ranks_here, int32_t cores) {
  using std::chrono::microseconds;
  if (ranks_here <= cores) return {};
  return {.spin = Duration{0}, .yield = microseconds{50}};
}

Result<std::unique_ptr<GroupFabric>> GroupFabric::create(const Shape& shape,
                                                         RankId rank,
                                                         LocalPeers local,
                                                         NodeLinks links,
                                                         const GroupFabricOptions& options) {
  WD_TRY(validate(shape));
  auto fabric = std::make_unique<GroupFabric>(Checked{}, shape, rank, std::move(local), options);
  WD_TRY(fabric->start(std::move(links)));
  return fabric;
}

GroupFabric::GroupFabric(
    Checked, const Shape& shape, RankId rank, LocalPeers local, const GroupFabricOptions& options)
    : shape_(shape),
      rank_(rank),
      options_(options),
      local_(std::move(local)),
      own_(peer_at(rank).arena),
      table_(shape.num_ranks()),
      direct_to_(static_cast<size_t>(shape.num_ranks())),
      link_to_(static_cast<size_t>(shape.num_ranks())) {}

GroupFabric::~GroupFabric() {
  is_leaving_.store(true, std::memory_order_release);
  flush_direct();  // what was sent shall come before the goodbye
  tell_all({ControlMessage::Kind::kLeaving, index(rank_), index(rank_)});
  if (!outgoing_.empty()) serve_until_others_leave();
  control_.stop();
}

void GroupFabric::flush_direct() {
  for (const auto& endpoint : direct_) {
    const Status status = endpoint->flush(clock().now() + options_.liveness_deadline);
    static_cast<void>(status);  // late or lost: it ends all the same
  }
}

// Other ranks of this node may still wait for what comes through this rank's door, unless the epoch
// is over; and what is queued for other nodes ends with why, and the goodbye.
void GroupFabric::serve_until_others_leave() {
  const TimePoint deadline = clock().now() + options_.liveness_deadline;
  using Life = PeerState::Life;
  const auto ready = [&] {
    return std::ranges::none_of(
        incoming_, [&](const auto& link) { return table_.life(link->source()) == Life::kAlive; });
  };
  const auto what = [] { return std::string("goodbye"); };
  const auto nobody = [] { return std::vector<RankId>{}; };
  // Late or lost: it ends all the same.
  static_cast<void>(wait({.ready = ready, .what = what, .missing = nobody}, deadline));
  for (int32_t r = 0; r < shape_.num_ranks(); ++r) {
    const RankId door{r};
    const bool is_door = link_to(door) != nullptr && shape_.door(rank_, door) == door;
    if (is_door && table_.life(door) != Life::kLost)
      static_cast<void>(link_to(door)->finish(deadline));
  }
}

Status GroupFabric::put(RankId peer, int64_t offset, std::span<const std::byte> bytes) {
  WD_CHECK(offset >= 0);
  WD_CHECK(offset + std::ssize(bytes) <= shape_.arena_bytes);
  if (UcxEndpoint* direct = direct_to(peer))
    return direct->put(peer, offset, bytes, clock().now() + options_.send_deadline);
  if (OutgoingLink* link = link_to(peer)) {
    if (link->queued_bytes() > options_.link_queue_bytes_max) WD_TRY(await_room(*link, peer));
    link->put(peer, offset, bytes);
    return {};
  }
  std::memcpy(mapped(peer).data() + offset, bytes.data(), bytes.size());
  return {};
}

Status GroupFabric::await_room(const OutgoingLink& link, RankId peer) {
  const auto ready = [&] { return link.queued_bytes() <= options_.link_queue_bytes_max; };
  const auto what = [&] {
    return fmt::format("room in the queue to rank {}'s node, {} bytes in it", index(peer),
                       link.queued_bytes());
  };
  const auto missing = [&] { return std::vector{peer}; };
  return wait({.ready = ready, .what = what, .missing = missing},
              clock().now() + options_.send_deadline);
}

Status GroupFabric::signal(RankId peer, ChannelId channel, const Signal& signal) {
  WD_CHECK(index(channel) >= 0);
  WD_CHECK(index(channel) < shape_.num_channels);
  if (UcxEndpoint* direct = direct_to(peer))
    return direct->signal(peer, channel, signal, clock().now() + options_.send_deadline);
  if (OutgoingLink* link = link_to(peer)) {
    link->signal(peer, channel, signal);
    return {};
  }
  const Arena& arena = peer_at(peer).arena;
  arena.line(channel, rank_).store(shape_.epoch, signal);
  arena.bell().ring_if_asleep();
  return {};
}

// Spins, then yields, then sleeps; looks at the world between.
Status GroupFabric::wait(const Awaited& awaited, TimePoint deadline) {
  constexpr int kLooksPerTurn = 16;
  const TimePoint start = clock().now();
  const TimePoint spin_until = start + options_.wait.spin;
  const TimePoint yield_until = spin_until + options_.wait.yield;
  TimePoint looked_at = start;
  for (TimePoint now = start;; now = clock().now()) {
    // While this rank was stopped, perhaps with all the others, it did not wait.
    if (now - looked_at > 2 * options_.wait.sleep_max) deadline += now - looked_at;
    looked_at = now;
    const int32_t num_gone = table_.num_gone();
    if (awaited.ready()) return {};
    if (num_gone > 0) {
      if (const auto lost = table_.cause_of_failure(awaited.missing)) {
        // What it said last may have come since: whoever leaves has said all before.
        if (awaited.ready()) return {};
        return std::unexpected(wait_error(*this, awaited, &*lost));
      }
    }
    if (now >= deadline) return std::unexpected(wait_error(*this, awaited, nullptr));
    if (now < yield_until && ucx_) ucx_->try_progress();
    if (now < spin_until) {
      for (int i = 0; i < kLooksPerTurn && !awaited.ready(); ++i)
        __builtin_ia32_pause();
    } else if (now < yield_until) {
      sched_yield();
    } else {
      const auto is_over = [&] { return awaited.ready() || table_.num_gone() != num_gone; };
      own_.bell().sleep_unless(is_over,
                               std::min<Duration>(deadline - now, options_.wait.sleep_max));
    }
  }
}

PeerState GroupFabric::peer_state(RankId peer) const {
  const int64_t heard = own_.life(peer).heard_ns.load(std::memory_order_relaxed);
  const int64_t now = clock().now().time_since_epoch().count();
  const bool is_self = peer == rank_;
  return {.life = table_.life(peer),
          .silence = is_self || heard == 0 ? Duration{0} : Duration{now - heard},
          .reason = table_.reason(peer),
          .transport = is_self                      ? "self"
                       : direct_to(peer) != nullptr ? "ucx"
                       : link_to(peer) != nullptr   ? "tcp"
                                                    : "shm"};
}

WireCounters GroupFabric::wire() const {
  WireCounters sum;
  const auto add = [&](const WireCounters& one) {
    sum.bytes_sent += one.bytes_sent;
    sum.frames_sent += one.frames_sent;
  };
  for (const auto& link : outgoing_)
    add(link->counters());
  for (const auto& endpoint : direct_)
    add(endpoint->counters());
  return sum;
}

}  // namespace wideep::fabric
