// A deployment on this host as processes: which program with which arguments, where each listens,
// and which of them are the endpoints that the gateway may call.
//
//   gateway ─► sidecar of a decode rank ─► prefill rank, then its decode rank
//
// Without a group for prefill there are no sidecars and the gateway calls the ranks themselves.
#pragma once

#include "base/function_ref.h"
#include "base/result.h"
#include "launcher/cluster_config.h"
#include "launcher/supervisor.h"
#include "net/address.h"
#include "net/held_ports.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace wideep::launcher {

// A process of the deployment that answers /health.
struct Member {
  enum class Kind : uint8_t { kRank, kSidecar, kGateway };
  std::string name;   // "decode-1"
  std::string group;  // the supervisor's group it belongs to
  size_t index = 0;   // in that group
  Kind kind = Kind::kRank;
  net::Address address;
};

// A rank and how it is reached.
struct RankPlan {
  std::string name;
  Role role = Role::kDecode;
  size_t member = 0;              // index into Deployment::members
  std::optional<size_t> sidecar;  // likewise; it stands before a decode rank where there is prefill
};

struct Deployment {
  std::vector<GroupSpec> groups;  // in the order of their start; ended in reverse
  std::vector<Member> members;
  std::vector<RankPlan> ranks;
  net::Address gateway;
  std::string endpoints_file;  // kept by whoever runs the deployment, read by the gateway

  // The member that the gateway calls to reach a rank.
  const Member& endpoint_of(const RankPlan& rank) const {
    return members[rank.sidecar.value_or(rank.member)];
  }

  // Whether the gateway's answer to /health says that it knows all endpoints.
  bool is_complete(std::string_view gateway_health) const;

  // What belongs into endpoints_file when `is_ready` tells which ranks can be called.
  std::string endpoints(FunctionRef<bool(const RankPlan&)> is_ready) const;
};

struct DeploymentPlace {
  std::string program;              // wideep, by path
  std::string folder;               // of this run: RunFolder
  int64_t num_cores = 1;            // to share among ranks whose `threads` is 0
  std::vector<int> hopeless_codes;  // RestartOptions::hopeless_codes of every group
  std::string kv_key_file;
  std::string group_key_file;
  std::string client_key_file;  // of the gateway's clients; "": the configuration tells
};

// Chooses and holds all ports. kUnavailable if one cannot be had.
Result<Deployment> plan_deployment(const ClusterConfig& config,
                                   const DeploymentPlace& place,
                                   net::HeldPorts& ports);

}  // namespace wideep::launcher
