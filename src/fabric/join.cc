#include "fabric/join.h"

#include "base/random.h"
#include "fabric/meeting.h"
#include "fabric/stream.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <map>

namespace wideep::fabric {
namespace {

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

// Bound to this epoch of this group: a key of another opens nothing here.
std::optional<PresharedKey> link_key(const std::optional<PresharedKey>& key,
                                     const Membership& membership) {
  if (!key) return std::nullopt;
  return key->derive(fmt::format("links {:x} {}", membership.token, membership.epoch));
}

// The ways to all other ranks, still unused.
struct Ways {
  LocalPeers local;
  NodeLinks nodes;
};

Result<Ways> link(const JoinOptions& options,
                  const Shape& shape,
                  const Membership& membership,
                  int listener,
                  int interrupt) {
  Ways ways;
  WD_ASSIGN_OR_RETURN(
      ways.local,
      hand_over(shape, options.rank,
                {.token = membership.token, .timeout = options.timeout, .interrupt = interrupt}));
  std::unique_ptr<UcxWorker> ucx;
  if (options.transport == NodeTransport::kUcx && shape.ranks_by_node().size() > 1) {
    WD_ASSIGN_OR_RETURN(ucx, UcxWorker::create(shape, options.rank, ways.local, options.ucx));
  }
  WD_ASSIGN_OR_RETURN(ways.nodes,
                      link_nodes(shape, options.rank, listener,
                                 {.token = membership.token,
                                  .addresses = membership.addresses,
                                  .timeout = options.timeout,
                                  .tcp = {.silence_max = options.fabric.liveness_deadline},
                                  .key = link_key(options.key, membership),
                                  .ucx = ucx.get(),
                                  .interrupt = interrupt}));
  ways.nodes.ucx = std::move(ucx);
  return ways;
}

Shape shape_of(const JoinOptions& options, const Membership& membership, ArenaBytes arena_bytes) {
  return {.node_of = membership.node_of,
          .epoch = membership.epoch,
          .arena_bytes = arena_bytes(membership.node_of),
          .num_channels = options.num_channels};
}

Result<std::unique_ptr<GroupFabric>> alone(const JoinOptions& options, ArenaBytes arena_bytes) {
  const Membership self{.epoch = options.epoch,
                        .token = random_device_bits(),
                        .node_of = {NodeId{0}},
                        .addresses = {{.host = options.host}}};
  const Shape shape = shape_of(options, self, arena_bytes);
  WD_ASSIGN_OR_RETURN(LocalPeers local, hand_over(shape, options.rank, {.token = self.token}));
  return GroupFabric::create(shape, options.rank, std::move(local), {}, options.fabric);
}

}  // namespace

std::string_view name(NodeTransport transport) {
  return transport == NodeTransport::kUcx ? "ucx" : "tcp";
}

Result<std::unique_ptr<GroupFabric>> join(const JoinOptions& given, ArenaBytes arena_bytes) {
  JoinOptions options = given;
  if (options.host.empty()) {
    WD_ASSIGN_OR_RETURN(options.host,
                        host_towards(options.leader, real_clock().now() + options.timeout));
  }
  WD_TRY(check(options));
  if (options.num_ranks == 1) return alone(options, arena_bytes);
  WD_ASSIGN_OR_RETURN(const UniqueFd listener, listen_at({.host = options.host}));
  WD_ASSIGN_OR_RETURN(const net::Address own_address,
                      local_address(listener.get(), {.host = options.host}));
  WD_ASSIGN_OR_RETURN(const std::unique_ptr<Meeting> meeting,
                      Meeting::begin({.leader = options.leader,
                                      .self = own_introduction(options, own_address),
                                      .epoch = options.epoch,
                                      .key = options.key,
                                      .timeout = options.timeout,
                                      .liveness_deadline = options.fabric.liveness_deadline}));
  WD_ASSIGN_OR_RETURN(const Membership membership, meeting->members());
  const Shape shape = shape_of(options, membership, arena_bytes);
  Result<Ways> ways = link(options, shape, membership, listener.get(), meeting->interrupt());
  if (!ways) return std::unexpected(meeting->give_up(ways.error()));
  WD_TRY(meeting->all_linked());
  return GroupFabric::create(shape, options.rank, std::move(ways->local), std::move(ways->nodes),
                             options.fabric);
}

}  // namespace wideep::fabric
