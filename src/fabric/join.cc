#include "fabric/join.h"

#include "base/log.h"
#include "base/random.h"
#include "fabric/stream.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <map>

namespace wideep::fabric {
namespace {

constexpr int kStrangersMax = 1000;
constexpr std::chrono::seconds kCallerTimeout{5};
constexpr std::chrono::seconds kPatience{10};  // then say who is awaited

// What makes shared memory and UNIX sockets work: the same kernel and the same network namespace.
std::string host_identity(const std::optional<int32_t>& node_id) {
  if (node_id) return fmt::format("node {}", *node_id);
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  file >> boot;
  struct stat net{};
  stat("/proc/self/ns/net", &net);
  return fmt::format("host {} net {}", boot, net.st_ino);
}

Status send_message(Stream& stream, const std::string& text, TimePoint deadline) {
  const auto length = static_cast<uint32_t>(text.size());
  WD_TRY(write_all(stream, std::as_bytes(std::span(&length, 1)), deadline));
  return write_all(stream, std::as_bytes(std::span(text)), deadline);
}

Result<std::string> receive_message(Stream& stream, TimePoint deadline) {
  uint32_t length = 0;
  WD_TRY(read_all(stream, std::as_writable_bytes(std::span(&length, 1)), deadline));
  if (length > kMeetingBytesMax)
    return invalid_argument("meeting: message of {} bytes, at most {}", length, kMeetingBytesMax);
  std::string text(length, '\0');
  WD_TRY(read_all(stream, std::as_writable_bytes(std::span(text)), deadline));
  return text;
}

// Everything that must agree, the fabric's part last.
std::string rules(const JoinOptions& options) {
  return fmt::format("{}{}{} between nodes", options.rules, options.rules.empty() ? "" : "; ",
                     name(options.transport));
}

Introduction own_introduction(const JoinOptions& options, const net::Address& own_address) {
  return {.rank = options.rank,
          .num_ranks = options.num_ranks,
          .host = host_identity(options.node_id),
          .address = own_address,
          .rules = rules(options)};
}

// The leader's view of the meeting.
struct Meeting {
  const JoinOptions& options;
  std::map<RankId, Introduction> present;
  std::map<RankId, std::unique_ptr<Stream>> callers;

  Status check(const Introduction& caller) const {
    if (caller.num_ranks != options.num_ranks)
      return invalid_argument("rank {} expects {} ranks, the leader {}", index(caller.rank),
                              caller.num_ranks, options.num_ranks);
    if (caller.rules != rules(options))
      return invalid_argument("rank {} runs '{}', the leader '{}'", index(caller.rank),
                              caller.rules, rules(options));
    if (present.contains(caller.rank))
      return invalid_argument("there are two of rank {}", index(caller.rank));
    return {};
  }

  // Whoever hung up while waiting for the others may be back as a new process.
  void forget_the_gone() {
    std::erase_if(callers, [&](const auto& caller) {
      std::byte nothing_yet;
      const bool is_gone = !caller.second->read(std::span(&nothing_yet, 1));
      if (is_gone) present.erase(caller.first);
      return is_gone;
    });
  }

  std::string missing() const {
    std::string text;
    for (int32_t r = 0; r < options.num_ranks; ++r)
      if (!present.contains(RankId{r})) text += fmt::format("{}{}", text.empty() ? "" : ", ", r);
    return text;
  }
};

// Takes one call. Whoever is refused is told why; it may come again.
Status take_call(Meeting& meeting, UniqueFd socket) {
  WD_TRY(prepare_socket(socket.get(), {}));
  const TimePoint deadline = real_clock().now() + kCallerTimeout;
  WD_ASSIGN_OR_RETURN(
      std::unique_ptr<Stream> stream,
      open_stream(std::move(socket), TlsRole::kServer, meeting.options.key, deadline));
  WD_ASSIGN_OR_RETURN(const std::string text, receive_message(*stream, deadline));
  meeting.forget_the_gone();
  Result<Introduction> caller = parse_introduction(text);
  Status status = caller ? meeting.check(*caller) : std::unexpected(caller.error());
  if (!status) {
    static_cast<void>(send_message(*stream, encode_refusal(status.error()), deadline));
    return status;
  }
  const RankId rank = caller->rank;
  meeting.callers[rank] = std::move(stream);
  meeting.present[rank] = *std::move(caller);
  return {};
}

Result<Membership> lead(const JoinOptions& options, const net::Address& own_address) {
  const TimePoint deadline = real_clock().now() + options.timeout;
  WD_ASSIGN_OR_RETURN(const UniqueFd listener, listen_at(options.leader));
  Meeting meeting{.options = options, .present = {}, .callers = {}};
  meeting.present[options.rank] = own_introduction(options, own_address);
  for (int strangers = 0; std::ssize(meeting.present) < options.num_ranks;) {
    Result<UniqueFd> socket =
        accept_call(listener.get(), std::min<TimePoint>(deadline, real_clock().now() + kPatience));
    if (!socket) {
      meeting.forget_the_gone();
      const std::string text = fmt::format("meeting at {}: ranks {} have not come",
                                           options.leader.to_string(), meeting.missing());
      if (real_clock().now() >= deadline) return error(ErrorCode::kTimeout, "{}", text);
      log_info("{} yet", text);
      continue;
    }
    const Status status = take_call(meeting, *std::move(socket));
    if (status) continue;
    log_warning("meeting: refused a caller: {}", status.error().message);
    if (++strangers > kStrangersMax)
      return error(ErrorCode::kExhausted, "meeting: more than {} callers refused", kStrangersMax);
  }
  std::vector<std::string> hosts;
  Membership membership{.epoch = options.epoch, .token = random_device_bits()};
  for (const auto& [rank, introduction] : meeting.present) {
    hosts.push_back(introduction.host);
    membership.addresses.push_back(introduction.address);
  }
  membership.node_of = number_nodes(hosts);
  for (const auto& [rank, stream] : meeting.callers) {
    const Status status = send_message(*stream, encode(membership), deadline);
    if (!status) return with_context(status.error(), fmt::format("meeting: rank {}", index(rank)));
  }
  return membership;
}

Result<UniqueFd> call_leader(const net::Address& leader, TimePoint deadline) {
  for (;;) {
    Result<UniqueFd> socket =
        connect_to(leader, std::min<TimePoint>(deadline, real_clock().now() + kPatience));
    if (socket || socket.error().code != ErrorCode::kTimeout || real_clock().now() >= deadline)
      return socket;
    log_info("the leader does not answer yet: {}", socket.error().message);
  }
}

Result<Membership> follow(const JoinOptions& options, const net::Address& own_address) {
  const TimePoint deadline = real_clock().now() + options.timeout;
  WD_ASSIGN_OR_RETURN(UniqueFd socket, call_leader(options.leader, deadline));
  WD_TRY(prepare_socket(socket.get(), {.silence_max = options.timeout}));
  WD_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream,
                      open_stream(std::move(socket), TlsRole::kClient, options.key, deadline));
  WD_TRY(send_message(*stream, encode(own_introduction(options, own_address)), deadline));
  const Result<std::string> text = receive_message(*stream, deadline);
  if (!text)
    return with_context(text.error(), fmt::format("meeting at {}: waiting for the other ranks",
                                                  options.leader.to_string()));
  return parse_membership(*text, options.num_ranks);
}

Status check(const JoinOptions& options) {
  if (options.num_ranks < 1 || options.num_ranks > kRanksMax)
    return invalid_argument("{} ranks, 1 to {} allowed", options.num_ranks, kRanksMax);
  if (index(options.rank) < 0 || index(options.rank) >= options.num_ranks)
    return invalid_argument("rank {} of {}", index(options.rank), options.num_ranks);
  const bool stays_here = net::is_loopback({.host = options.host}) &&
                          (options.num_ranks == 1 || net::is_loopback(options.leader));
  if (!stays_here && !options.key && !options.insecure)
    return invalid_argument(
        "leader {} and host {} are beyond this machine: that needs a key, or insecure",
        options.leader.to_string(), options.host);
  if (!stays_here && options.transport == NodeTransport::kUcx && !options.insecure)
    return invalid_argument("ucx does not encrypt: beyond this machine it needs insecure");
  return {};
}

Result<Membership> alone(const JoinOptions& options, const net::Address& own_address) {
  return Membership{.epoch = options.epoch,
                    .token = random_device_bits(),
                    .node_of = {NodeId{0}},
                    .addresses = {own_address}};
}

// Bound to this epoch of this group: a key of another opens nothing here.
std::optional<PresharedKey> link_key(const std::optional<PresharedKey>& key,
                                     const Membership& membership) {
  if (!key) return std::nullopt;
  return key->derive(fmt::format("links {:x} {}", membership.token, membership.epoch));
}

}  // namespace

std::string_view name(NodeTransport transport) {
  return transport == NodeTransport::kUcx ? "ucx" : "tcp";
}

Result<Membership> meet(const JoinOptions& options, const net::Address& own_address) {
  WD_TRY(check(options));
  if (options.num_ranks == 1) return alone(options, own_address);
  return options.rank == RankId{0} ? lead(options, own_address) : follow(options, own_address);
}

Result<std::unique_ptr<GroupFabric>> join(const JoinOptions& given, ArenaBytes arena_bytes) {
  JoinOptions options = given;
  if (options.host.empty()) {
    WD_ASSIGN_OR_RETURN(options.host,
                        host_towards(options.leader, real_clock().now() + options.timeout));
  }
  WD_TRY(check(options));
  WD_ASSIGN_OR_RETURN(const UniqueFd listener, listen_at({.host = options.host}));
  WD_ASSIGN_OR_RETURN(const net::Address own_address,
                      local_address(listener.get(), {.host = options.host}));
  WD_ASSIGN_OR_RETURN(const Membership membership, meet(options, own_address));
  const Shape shape{.node_of = membership.node_of,
                    .epoch = membership.epoch,
                    .arena_bytes = arena_bytes(membership.node_of),
                    .num_channels = options.num_channels};
  WD_ASSIGN_OR_RETURN(
      LocalPeers local,
      hand_over(shape, options.rank, {.token = membership.token, .timeout = options.timeout}));
  std::unique_ptr<UcxWorker> ucx;
  if (options.transport == NodeTransport::kUcx && shape.ranks_by_node().size() > 1) {
    WD_ASSIGN_OR_RETURN(ucx, UcxWorker::create(shape, options.rank, local, options.ucx));
  }
  WD_ASSIGN_OR_RETURN(NodeLinks links,
                      link_nodes(shape, options.rank, listener.get(),
                                 {.token = membership.token,
                                  .addresses = membership.addresses,
                                  .timeout = options.timeout,
                                  .tcp = {.silence_max = options.fabric.liveness_deadline},
                                  .key = link_key(options.key, membership),
                                  .ucx = ucx.get()}));
  links.ucx = std::move(ucx);
  return GroupFabric::create(shape, options.rank, std::move(local), std::move(links),
                             options.fabric);
}

}  // namespace wideep::fabric
