#include "fabric/group_fabric.h"

#include "base/check.h"
#include "base/log.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace wideep::fabric {
namespace {

constexpr int kBeatsPerDeadline = 6;

int64_t host_ns() {
  return real_clock().now().time_since_epoch().count();
}

}  // namespace

WaitPolicy WaitPolicy::for_node(int32_t ranks_here, int32_t cores) {
  using std::chrono::microseconds;
  if (ranks_here <= cores) return {};
  return {.spin = Duration{0}, .yield = microseconds{50}};
}

Result<std::unique_ptr<GroupFabric>> GroupFabric::create(const Shape& shape,
                                                         RankId rank,
                                                         LocalPeers local,
                                                         const GroupFabricOptions& options) {
  WD_TRY(validate(shape));
  auto fabric = std::make_unique<GroupFabric>(Checked{}, shape, rank, std::move(local), options);
  WD_TRY(fabric->start());
  return fabric;
}

GroupFabric::GroupFabric(
    Checked, const Shape& shape, RankId rank, LocalPeers local, const GroupFabricOptions& options)
    : shape_(shape),
      rank_(rank),
      options_(options),
      local_(std::move(local)),
      own_(peer_at(rank).arena),
      table_(shape.num_ranks()) {}

GroupFabric::~GroupFabric() {
  tell_all({ControlMessage::Kind::kLeaving, index(rank_), index(rank_)});
  control_.stop();
}

Status GroupFabric::put(RankId peer, int64_t offset, std::span<const std::byte> bytes) {
  WD_CHECK(offset >= 0);
  WD_CHECK(offset + std::ssize(bytes) <= shape_.arena_bytes);
  const std::span<std::byte> arena = mapped(peer);
  WD_CHECK(!arena.empty());
  std::memcpy(arena.data() + offset, bytes.data(), bytes.size());
  return {};
}

Status GroupFabric::signal(RankId peer, ChannelId channel, const Signal& signal) {
  WD_CHECK(index(channel) >= 0);
  WD_CHECK(index(channel) < shape_.num_channels);
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
  for (TimePoint now = start;; now = clock().now()) {
    const int32_t num_gone = table_.num_gone();
    if (awaited.ready()) return {};
    if (num_gone > 0) {
      if (const auto lost = table_.cause_of_failure(awaited.missing))
        return std::unexpected(wait_error(*this, awaited, &*lost));
    }
    if (now >= deadline) return std::unexpected(wait_error(*this, awaited, nullptr));
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
  const bool is_self = peer == rank_;
  return {.life = table_.life(peer),
          .silence = is_self || heard == 0 ? Duration{0} : Duration{host_ns() - heard},
          .reason = table_.reason(peer),
          .transport = is_self               ? "self"
                       : peer_at(peer).arena ? "shm"
                                             : "none"};
}

// ---- The control thread.

Status GroupFabric::start() {
  WD_TRY(control_.open());
  for (int32_t r = 0; r < shape_.num_ranks(); ++r) {
    own_.life(RankId{r}).heard_ns.store(host_ns(), std::memory_order_relaxed);
    if (RankId{r} != rank_) WD_TRY(watch_peer(RankId{r}));
  }
  last_beat_ns_ = host_ns();
  control_.start(options_.liveness_deadline / kBeatsPerDeadline, [this] { beat(); });
  return {};
}

Status GroupFabric::watch_peer(RankId peer) {
  LocalPeer& local = peer_at(peer);
  if (!local.socket) return {};
  WD_TRY(control_.watch(local.socket.get(), EPOLLIN, [this, peer](uint32_t) { hear(peer); }));
  if (!local.process) return {};
  // Second to the socket, for when a forked child still holds the other end.
  return control_.watch(local.process.get(), EPOLLIN, [this, peer](uint32_t) {
    control_.unwatch(peer_at(peer).process.get());
    hear(peer);
    hold_for_lost(peer, "process ended");
  });
}

// Reads what the peer has to say, to the end of the connection if it has come.
void GroupFabric::hear(RankId peer) {
  for (;;) {
    ControlMessage message;
    const ssize_t count = recv(peer_at(peer).socket.get(), &message, sizeof message, MSG_DONTWAIT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (count != sizeof message) {
      control_.unwatch(peer_at(peer).socket.get());
      hold_for_lost(peer, "connection closed");
      return;
    }
    believe(message);
  }
}

void GroupFabric::believe(const ControlMessage& message) {
  if (message.about < 0 || message.about >= shape_.num_ranks()) return;
  const RankId about{message.about};
  if (message.kind == ControlMessage::Kind::kLeaving) {
    table_.set_left(about);
    own_.bell().ring();
  } else if (message.kind == ControlMessage::Kind::kLost) {
    hold_for_lost(about, fmt::format("reported by rank {}", message.from));
  }
}

// The first to know tells all others; each passes it on once.
void GroupFabric::hold_for_lost(RankId peer, const std::string& reason) {
  if (table_.life(peer) == PeerState::Life::kLeft) return;
  if (!table_.set_lost(peer, reason)) return;
  log_warning("rank {} lost: {}", index(peer), reason);
  tell_all({ControlMessage::Kind::kLost, index(peer), index(rank_)});
  own_.bell().ring();
}

void GroupFabric::tell_all(const ControlMessage& message) {
  for (const LocalPeer& peer : local_.peers) {
    // Fails when the peer is gone or its socket is full of what it does not read: it will see for
    // itself.
    if (peer.socket) send(peer.socket.get(), &message, sizeof message, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

void GroupFabric::beat() {
  const int64_t now = host_ns();
  // After a stop of its own this rank is the one that was silent: it listens before it judges.
  const bool may_judge = now - last_beat_ns_ < options_.liveness_deadline.count() / 2;
  last_beat_ns_ = now;
  for (int32_t r = 0; r < shape_.num_ranks(); ++r) {
    const RankId peer{r};
    if (const Arena& arena = peer_at(peer).arena)
      arena.life(rank_).heard_ns.store(now, std::memory_order_relaxed);
    if (!may_judge || peer == rank_ || table_.life(peer) != PeerState::Life::kAlive) continue;
    if (now - own_.life(peer).heard_ns.load(std::memory_order_relaxed) >
        options_.liveness_deadline.count())
      hold_for_lost(peer, "no heartbeat");
  }
}

}  // namespace wideep::fabric
