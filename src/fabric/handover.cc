#include "fabric/handover.h"

#include "base/log.h"
#include "fabric/local_socket.h"
#include "fabric/wait_limit.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace wideep::fabric {
namespace {

constexpr int kStrangersMax = 64;  // callers who are refused before we give up
constexpr std::chrono::milliseconds kRetry{5};

std::unexpected<Error> failed(std::string_view what) {
  return error(ErrorCode::kUnavailable, "handover: {}: {}", what, strerrordesc_np(errno));
}

std::string name_of(uint64_t token, uint64_t epoch, RankId rank) {
  return fmt::format("wideep-{:016x}-{}-{}", token, epoch, index(rank));
}

// What both sides need to greet.
struct Self {
  const Shape& shape;
  Greeting greeting;
  int memory_fd = -1;
  WaitLimit limit;
  Duration greeting_timeout;
};

// Tells who we are, and gives our memory, to a process of the same user only.
Status send_greeting(int socket, const Self& self) {
  WD_TRY(same_user_peer(socket));
  return send_descriptor(socket, std::as_bytes(std::span(&self.greeting, 1)), self.memory_fd);
}

struct Received {
  RankId rank{};
  UniqueFd memory;
};

Result<Received> receive_greeting(int socket, const Self& self, const WaitLimit& limit) {
  if (!limit.await(socket, POLLIN)) return error(ErrorCode::kTimeout, "handover: no greeting came");
  std::array<std::byte, sizeof(Greeting) + 1> bytes;
  WD_ASSIGN_OR_RETURN(ReceivedDescriptor greeting, receive_descriptor(socket, bytes));
  if (greeting.num_bytes == 0)
    return error(ErrorCode::kPeerLost, "handover: the other end has hung up");
  Received received{.rank = {}, .memory = std::move(greeting.descriptor)};
  WD_ASSIGN_OR_RETURN(received.rank, parse_greeting(std::span(bytes).first(greeting.num_bytes),
                                                    self.greeting, self.shape.num_ranks()));
  if (!received.memory) return invalid_argument("handover: greeting without memory");
  return received;
}

// Turns a greeted connection into a peer. The kernel says who is at the other end.
Result<LocalPeer> admit(UniqueFd socket, Received received, const Self& self) {
  WD_ASSIGN_OR_RETURN(const pid_t process, same_user_peer(socket.get()));
  LocalPeer peer;
  WD_ASSIGN_OR_RETURN(SharedMemory memory,
                      SharedMemory::map(std::move(received.memory), Arena::bytes_for(self.shape)));
  peer.memory = std::make_shared<SharedMemory>(std::move(memory));
  peer.arena = Arena(peer.memory->bytes(), self.shape);
  WD_TRY(peer.arena.check(self.shape, received.rank, self.greeting.shape_hash));
  if (process > 0)  // 0: it lives in another PID namespace
    peer.process = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, process, 0)));
  peer.socket = std::move(socket);
  return peer;
}

Result<UniqueFd> connect_to(const std::string& name, RankId rank, const WaitLimit& limit) {
  for (;;) {
    Result<UniqueFd> socket = connect_local(name, local_packets());
    if (socket) return socket;
    const bool may_still_start = socket.error().code == ErrorCode::kNotFound;
    if (!may_still_start) return with_context(socket.error(), "handover");
    if (limit.has_passed())
      return error(ErrorCode::kTimeout, "handover: rank {} of this node does not listen",
                   index(rank));
    limit.pause(kRetry);  // it has not started yet
  }
}

Result<LocalPeer> own_arena(const Shape& shape, RankId rank) {
  LocalPeer own;
  WD_ASSIGN_OR_RETURN(
      SharedMemory memory,
      SharedMemory::create(fmt::format("wideep-arena-{}", index(rank)), Arena::bytes_for(shape)));
  own.memory = std::make_shared<SharedMemory>(std::move(memory));
  own.arena = Arena(own.memory->bytes(), shape);
  own.arena.initialise(shape, rank, hash(shape));
  return own;
}

// Answers a caller's greeting, if it is one of the ranks that should call. An error: a stranger.
Result<Received> greet_caller(int socket, RankId rank, const Self& self, const LocalPeers& all) {
  WD_ASSIGN_OR_RETURN(Received received, receive_greeting(socket, self, self.limit));
  const bool is_expected = received.rank > rank && self.shape.same_node(rank, received.rank) &&
                           !all.peers[subscript(received.rank)].arena;
  if (!is_expected) return invalid_argument("not a rank that should call");
  WD_TRY(send_greeting(socket, self));
  return received;
}

// Waits for the calls of the higher ranks of this node. Strangers are turned away, and one who says
// nothing holds up nobody.
class HigherRanks {
 public:
  HigherRanks(int listener, RankId rank, const Self& self, LocalPeers& all)
      : listener_(listener), rank_(rank), self_(self), all_(all) {}

  Status admit_all() {
    while (!expected().empty()) {
      WD_ASSIGN_OR_RETURN(const bool is_called, await());
      WD_TRY(hear());
      if (is_called) WD_TRY(let_in());
    }
    return {};
  }

 private:
  // One who has yet to greet.
  struct Caller {
    UniqueFd socket;
    TimePoint patience;
    bool has_spoken = false;  // or hung up
  };

  std::string expected() const {
    std::string ranks;
    for (int32_t r = index(rank_) + 1; r < self_.shape.num_ranks(); ++r)
      if (self_.shape.same_node(rank_, RankId{r}) && !all_.peers[static_cast<size_t>(r)].arena)
        ranks += fmt::format(" {}", r);
    return ranks;
  }

  // For a call (true), for what a caller says, or until patience with one ends.
  Result<bool> await() {
    const bool is_full = std::ssize(callers_) >= self_.shape.num_ranks() + kStrangersMax;
    std::vector<pollfd> polled{{.fd = is_full ? -1 : listener_, .events = POLLIN, .revents = 0}};
    TimePoint until = self_.limit.deadline();
    for (const Caller& caller : callers_) {
      polled.push_back({.fd = caller.socket.get(), .events = POLLIN, .revents = 0});
      until = std::min(until, caller.patience);
    }
    if (!self_.limit.at_most(until).await(polled) && self_.limit.has_passed())
      return error(ErrorCode::kTimeout, "handover: ranks{} of this node did not call", expected());
    for (size_t i = 0; i < callers_.size(); ++i)
      callers_[i].has_spoken = polled[i + 1].revents != 0;
    return polled.front().revents != 0;
  }

  Status let_in() {
    UniqueFd socket(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket && (errno == EINTR || errno == ECONNABORTED)) return {};
    if (!socket) return failed("accept");
    if (const auto other = same_user_peer(socket.get()); !other) return refuse(other.error());
    callers_.push_back({std::move(socket), real_clock().now() + self_.greeting_timeout});
    return {};
  }

  Status hear() {
    for (auto caller = callers_.begin(); caller != callers_.end();) {
      if (!caller->has_spoken && real_clock().now() < caller->patience) {
        ++caller;
        continue;
      }
      const bool has_spoken = caller->has_spoken;
      UniqueFd socket = std::move(caller->socket);
      caller = callers_.erase(caller);
      WD_TRY(has_spoken ? admit_if_expected(std::move(socket))
                        : refuse(error(ErrorCode::kTimeout, "handover: no greeting came").error()));
    }
    return {};
  }

  Status admit_if_expected(UniqueFd socket) {
    Result<Received> received = greet_caller(socket.get(), rank_, self_, all_);
    if (!received) return refuse(received.error());
    const auto peer = subscript(received->rank);
    WD_ASSIGN_OR_RETURN(all_.peers[peer], admit(std::move(socket), *std::move(received), self_));
    return {};
  }

  Status refuse(const Error& reason) {
    if (reason.code == ErrorCode::kExhausted)
      return std::unexpected(reason);  // not the caller's fault
    log_warning("handover: refused a caller: {}", reason.message);
    if (++num_strangers_ <= kStrangersMax) return {};
    return error(ErrorCode::kExhausted, "handover: more than {} strangers called", kStrangersMax);
  }

  const int listener_;
  const RankId rank_;
  const Self& self_;
  LocalPeers& all_;
  std::vector<Caller> callers_;
  int num_strangers_ = 0;
};

}  // namespace

Result<RankId> parse_greeting(std::span<const std::byte> bytes,
                              const Greeting& own,
                              int32_t ranks) {
  Greeting greeting;
  if (bytes.size() != sizeof greeting)
    return invalid_argument("handover: greeting of {} bytes, {} expected", bytes.size(),
                            sizeof greeting);
  std::memcpy(&greeting, bytes.data(), sizeof greeting);
  if (greeting.magic != own.magic || greeting.token != own.token)
    return invalid_argument("handover: greeting from another group");
  if (greeting.rank < 0 || greeting.rank >= ranks)
    return invalid_argument("handover: greeting from rank {} of {}", greeting.rank, ranks);
  if (greeting.shape_hash != own.shape_hash)
    return invalid_argument("handover: rank {} has shape {:016x}, this rank {:016x}", greeting.rank,
                            greeting.shape_hash, own.shape_hash);
  return RankId{static_cast<int32_t>(greeting.rank)};
}

Result<LocalPeers> hand_over(const Shape& shape, RankId rank, const HandoverOptions& options) {
  WD_TRY(validate(shape));
  LocalPeers all{.peers = std::vector<LocalPeer>(static_cast<size_t>(shape.num_ranks()))};
  WD_ASSIGN_OR_RETURN(LocalPeer own, own_arena(shape, rank));
  const Self self{.shape = shape,
                  .greeting = {kGreetingMagic, options.token, hash(shape), index(rank)},
                  .memory_fd = own.memory->fd(),
                  .limit = {real_clock().now() + options.timeout, options.interrupt},
                  .greeting_timeout = options.greeting_timeout};
  all.peers[subscript(rank)] = std::move(own);
  WD_ASSIGN_OR_RETURN(
      const UniqueFd listener,
      listen_local(name_of(options.token, shape.epoch, rank), local_packets(), kRanksMax));
  for (int32_t r = 0; r < index(rank); ++r) {
    if (!shape.same_node(rank, RankId{r})) continue;
    WD_ASSIGN_OR_RETURN(UniqueFd socket, connect_to(name_of(options.token, shape.epoch, RankId{r}),
                                                    RankId{r}, self.limit));
    WD_TRY(send_greeting(socket.get(), self));
    WD_ASSIGN_OR_RETURN(Received received, receive_greeting(socket.get(), self, self.limit));
    if (received.rank != RankId{r})
      return invalid_argument("handover: rank {} answered as rank {}", r, index(received.rank));
    WD_ASSIGN_OR_RETURN(all.peers[static_cast<size_t>(r)],
                        admit(std::move(socket), std::move(received), self));
  }
  WD_TRY(HigherRanks(listener.get(), rank, self, all).admit_all());
  return all;
}

Result<std::vector<LocalPeers>> hand_over_in_process(const Shape& shape) {
  WD_TRY(validate(shape));
  const auto n = static_cast<size_t>(shape.num_ranks());
  std::vector<LocalPeers> all(n);
  for (LocalPeers& one : all)
    one.peers.resize(n);
  for (size_t r = 0; r < n; ++r) {
    const RankId rank{static_cast<int32_t>(r)};
    WD_ASSIGN_OR_RETURN(const LocalPeer own, own_arena(shape, rank));
    for (size_t q = 0; q < n; ++q) {
      if (!shape.same_node(rank, RankId{static_cast<int32_t>(q)})) continue;
      all[q].peers[r].memory = own.memory;
      all[q].peers[r].arena = own.arena;
      if (q <= r) continue;
      std::array<int, 2> ends;
      if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
        return failed("socket pair");
      all[r].peers[q].socket = UniqueFd(ends[0]);
      all[q].peers[r].socket = UniqueFd(ends[1]);
    }
  }
  return all;
}

}  // namespace wideep::fabric
