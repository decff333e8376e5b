// How a process becomes a rank: it meets the others at the leader's address, learns who lives
// where, and gets a fabric to all of them. Thread: any; everything here blocks, at most for
// JoinOptions::timeout in each of its stages.
#pragma once

#include "base/function_ref.h"
#include "base/result.h"
#include "fabric/fabric.h"
#include "fabric/group_fabric.h"
#include "fabric/membership.h"
#include "fabric/tls.h"
#include "net/address.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace wideep::fabric {

// How ranks of different nodes reach each other. Ranks of one node share memory in any case.
enum class NodeTransport { kTcp, kUcx };
std::string_view name(NodeTransport transport);  // "tcp", "ucx"

struct JoinOptions {
  RankId rank{};          // --data-parallel-rank, LWS_WORKER_INDEX
  int32_t num_ranks = 1;  // --data-parallel-size, LWS_GROUP_SIZE
  // Where rank 0 listens and all others call: --data-parallel-address and --data-parallel-rpc-port,
  // LWS_LEADER_ADDRESS. A Unix socket if all ranks are on one host.
  net::Address leader;
  // This host, as the others reach it; "": the address from which it reaches the leader.
  std::string host = "127.0.0.1";
  std::optional<int32_t> node_id;  // --node-id: overrides which ranks share a host
  std::string rules;               // what must agree besides: NumericConfig, model; readable
  uint64_t epoch = 1;              // of the leader; the others learn it
  int32_t num_channels = 8;
  std::optional<PresharedKey> key;  // authenticates and encrypts what goes over TCP
  bool insecure = false;            // --insecure: addresses beyond this host without a key
  NodeTransport transport = NodeTransport::kTcp;  // kUcx beyond this host needs `insecure`
  UcxOptions ucx;
  Duration timeout = std::chrono::seconds{120};  // for all to come
  GroupFabricOptions fabric;
};

// Bytes of each rank's arena, once it is known who lives where; the same on all ranks.
using ArenaBytes = FunctionRef<int64_t(const std::vector<NodeId>&)>;

// kInvalidArgument: the leader or this rank refuses, with both sides named. kTimeout: not all came.
// kPeerLost: the leader, or a rank after all had come. A group of one needs no leader.
Result<std::unique_ptr<GroupFabric>> join(const JoinOptions& options, ArenaBytes arena_bytes);

}  // namespace wideep::fabric
