// What GroupFabric does on its control thread.
#include "base/log.h"
#include "fabric/group_fabric.h"
#include "fabric/group_incoming.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

namespace wideep::fabric {
namespace {

// What comes between frames wakes this thread from so many bytes and the overhead of one record on:
// two or three beats (16 each, in cipher 38) do not, and are read with this thread's own next beat;
// the shortest signal (72, in cipher 94) does. So a door that serves many ranks wakes no more often
// than any other.
constexpr int kWakeBytes = 64;
constexpr std::chrono::milliseconds kUcxRetry{1};

int64_t host_ns() {
  return real_clock().now().time_since_epoch().count();
}

}  // namespace

Status GroupFabric::start(NodeLinks links) {
  WD_TRY(control_.open());
  for (int32_t r = 0; r < shape_.num_ranks(); ++r) {
    own_.life(RankId{r}).heard_ns.store(host_ns(), std::memory_order_relaxed);
    if (RankId{r} != rank_) WD_TRY(watch_peer(RankId{r}));
  }
  WD_TRY(add_links(std::move(links)));
  for (int32_t r = 0; r < shape_.num_ranks(); ++r) {
    if (link_to(RankId{r}) == nullptr && !peer_at(RankId{r}).arena)
      return invalid_argument("rank {} has neither an arena here nor a link", r);
  }
  last_beat_ns_ = host_ns();
  if (ucx_) progress_ucx();
  control_.start(beat_period(), [this] { beat(); });
  return {};
}

void GroupFabric::progress_ucx() {
  if (ucx_->progress() || ucx_retries_) return;
  ucx_retries_ = true;
  control_.after(kUcxRetry, [this] {
    ucx_retries_ = false;
    progress_ucx();
  });
}

Status GroupFabric::add_links(NodeLinks links) {
  ucx_ = std::move(links.ucx);
  if (ucx_) {
    WD_TRY(control_.watch(ucx_->event_fd(), EPOLLIN, [this](uint32_t) { progress_ucx(); }));
  }
  for (NodeLink& link : links.outgoing) {
    const int fd = link.stream->fd();
    const auto on_backlog = [this, fd](bool is_waiting) {
      control_.change(fd, is_waiting ? EPOLLIN | EPOLLOUT : EPOLLIN);
    };
    outgoing_.push_back(std::make_unique<OutgoingLink>(std::move(link.stream), on_backlog));
    for (const RankId rank : link.ranks)
      link_to_[subscript(rank)] = outgoing_.back().get();
    WD_TRY(watch_link(*outgoing_.back(), link.door));
    if (link.direct) {
      direct_.push_back(std::move(link.direct));
      for (const RankId rank : link.ranks)
        direct_to_[subscript(rank)] = direct_.back().get();
    }
    log_info("node of rank {}: {} ranks over {}, by rank {}", index(link.ranks.front()),
             link.ranks.size(), peer_state(link.door).transport, index(link.door));
  }
  for (SourceLink& link : links.incoming) {
    incoming_.push_back(std::make_unique<Incoming>(*this, std::move(link)));
    Incoming& incoming = *incoming_.back();
    WD_TRY(
        control_.watch(incoming.fd(), EPOLLIN, [this, &incoming](uint32_t) { take_in(incoming); }));
  }
  return {};
}

void GroupFabric::take_in(Incoming& incoming) {
  if (incoming.has_ended) return;
  const Status status = incoming.read();
  if (status) return;
  incoming.has_ended = true;
  control_.unwatch(incoming.fd());
  hold_for_lost(incoming.source(), status.error().message);
}

// Nothing is ever read from an outgoing link: that it becomes readable means that it has ended. Its
// door may have closed it because of somebody else's death, or has died, and what says so comes by
// other ways: its own link to this node and the rank that reads it. Those get a beat's time, on a
// machine that may be busy, so that the right rank is named.
Status GroupFabric::watch_link(OutgoingLink& link, RankId door) {
  return control_.watch(link.fd(), EPOLLIN, [this, &link, door](uint32_t events) {
    const bool has_ended = (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0;
    if (!has_ended && link.flush()) {
      own_.bell().ring_if_asleep();  // somebody may wait for room
      return;
    }
    control_.unwatch(link.fd());
    // A door closes when all whom it served have said goodbye, this rank too.
    control_.after(beat_period(), [this, door] {
      if (!is_leaving_.load(std::memory_order_acquire)) hold_for_lost(door, "link closed");
    });
  });
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
    // A peer that closed before it read our goodbye resets the connection; what it said before is
    // still there.
    if (count < 0 && (errno == EINTR || errno == ECONNRESET)) continue;
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

// The first to know tells all others; each passes it on once. The others hear of it before whoever
// waits here, who may leave then: the reason comes before the goodbye.
void GroupFabric::hold_for_lost(RankId peer, const std::string& reason) {
  if (table_.life(peer) != PeerState::Life::kAlive) return;
  tell_all({ControlMessage::Kind::kLost, index(peer), index(rank_)});
  table_.set_lost(peer, reason);
  for (const auto& endpoint : direct_)
    endpoint->fail();  // the epoch is over: nobody shall wait for what cannot arrive
  own_.bell().ring();
  log_warning("rank {} lost: {}", index(peer), reason);
}

void GroupFabric::tell_all(const ControlMessage& message) {
  tell_node(message);
  for (const auto& link : outgoing_)
    link->control(message);
}

void GroupFabric::tell_node(const ControlMessage& message) {
  for (const LocalPeer& peer : local_.peers) {
    // Fails when the peer is gone or its socket is full of what it does not read: it will see for
    // itself.
    if (peer.socket) send(peer.socket.get(), &message, sizeof message, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

void GroupFabric::beat() {
  const int64_t now = host_ns();
  for (const auto& incoming : incoming_)
    take_in(*incoming);  // beats that did not wake this thread
  // Behind them: a door that is heard has passed on what was said through it.
  heard_of(rank_, now);
  for (const auto& link : outgoing_)
    link->beat();
  // After a stop of its own this rank is the one that was silent: it listens before it judges.
  const bool may_judge = now - last_beat_ns_ < options_.liveness_deadline.count() / 2;
  last_beat_ns_ = now;
  if (!may_judge) return;
  for (int32_t r = 0; r < shape_.num_ranks(); ++r) {
    const RankId peer{r};
    if (peer == rank_ || table_.life(peer) != PeerState::Life::kAlive) continue;
    // What a rank of another node says comes through its door here: a silent door is not its fault.
    const RankId door = shape_.same_node(rank_, peer) ? rank_ : shape_.door(peer, rank_);
    if (door != rank_ && silence_ns(door, now) > options_.liveness_deadline.count() / 2) continue;
    if (silence_ns(peer, now) > options_.liveness_deadline.count())
      hold_for_lost(peer, "no heartbeat");
  }
}

int64_t GroupFabric::silence_ns(RankId peer, int64_t now_ns) const {
  return now_ns - own_.life(peer).heard_ns.load(std::memory_order_acquire);
}

// In the arenas of this node.
void GroupFabric::heard_of(RankId source, int64_t now_ns) {
  for (const LocalPeer& peer : local_.peers)
    if (peer.arena) peer.arena.life(source).heard_ns.store(now_ns, std::memory_order_release);
}

Status GroupFabric::Incoming::read() {
  for (;;) {
    WD_ASSIGN_OR_RETURN(const size_t count, stream_->read(reader_.room()));
    if (count == 0) break;
    WD_TRY(reader_.advance(count));
  }
  // The rest of a frame may be short.
  const bool is_between = reader_.is_between_frames() && !stream_->holds_part();
  set_wake_bytes(is_between ? kWakeBytes + stream_->record_overhead() : 1);
  return {};
}

void GroupFabric::Incoming::set_wake_bytes(int bytes) {
  if (bytes == wake_bytes_) return;
  wake_bytes_ = bytes;
  setsockopt(fd(), SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
}

Result<const Arena*> GroupFabric::Incoming::arena_of(RankId to) const {
  const Arena& arena = fabric_.peer_at(to).arena;
  if (!arena) return invalid_argument("frame for rank {}, which is not on this node", index(to));
  return &arena;
}

Result<std::span<std::byte>> GroupFabric::Incoming::place(RankId to,
                                                          int64_t offset,
                                                          int64_t bytes) {
  WD_ASSIGN_OR_RETURN(const Arena* arena, arena_of(to));
  return arena->bytes().subspan(static_cast<size_t>(offset), static_cast<size_t>(bytes));
}

Status GroupFabric::Incoming::on_signal(RankId to, ChannelId channel, const Signal& signal) {
  WD_ASSIGN_OR_RETURN(const Arena* arena, arena_of(to));
  arena->line(channel, source_).store(fabric_.shape_.epoch, signal);
  arena->bell().ring_if_asleep();
  return {};
}

void GroupFabric::Incoming::on_beat() {
  fabric_.heard_of(source_, host_ns());
}

// What a rank says over its link concerns this whole node.
void GroupFabric::Incoming::on_control(ControlMessage::Kind kind, RankId about) {
  const ControlMessage message{kind, index(about), index(source_)};
  if (kind == ControlMessage::Kind::kLeaving) fabric_.tell_node(message);
  fabric_.believe(message);
}

}  // namespace wideep::fabric
