// The flags that say which ranks form a group and which of them this process runs: vLLM's names,
// with LeaderWorkerSet's environment as their defaults.
//
//   flags (or LWS_*) --resolve()--> GroupPlan: N ranks, those of this host, and whether this
//                                   process is one of them or starts them all
#pragma once

#include "base/options.h"
#include "base/result.h"
#include "cmd/expert_placement.h"
#include "fabric/tls.h"
#include "net/address.h"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace wideep::cmd {

// What LeaderWorkerSet puts into a pod's environment. It counts pods, not ranks: a pod has
// --data-parallel-size-local of them.
struct LwsEnvironment {
  std::string leader_address;
  int32_t group_size = 1;
  int32_t worker_index = 0;

  // Nothing if the variables are not set. kInvalidArgument: some are, or they are no such numbers.
  static Result<std::optional<LwsEnvironment>> read();
};

// Which ranks answer at the API of a process that starts ranks.
enum class Door {
  kOwnRanks,   // those of its host; each host has such a door
  kAllRanks,   // those of all hosts: it is the first, and waits for the others
  kElsewhere,  // it has none: the first host's door has its ranks too
  kEachRank    // it has none: each rank has an API of its own
};

// Which ranks there are and what this process has to do with them.
struct GroupPlan {
  int32_t num_ranks = 1;
  int32_t first_local = 0;  // ranks [first_local, first_local + num_local) run on this host
  int32_t num_local = 1;
  std::optional<int32_t> rank;  // this process is this rank; none: it starts the local ones
  Door door = Door::kOwnRanks;  // if it starts ranks
  bool expert_parallel = false;
  net::Address leader;            // where rank 0 listens and the others call; expert parallel only
  net::Address meeting_of_doors;  // likewise of the hosts, if there is one door for all
  PlacementOptions placement;

  // The ranks share experts: they meet, and live and die together.
  bool is_group() const { return expert_parallel && num_ranks > 1; }

  bool is_on_one_host() const { return num_local == num_ranks; }
};

struct GroupFlags {
  static constexpr int64_t kSupervisorPort = 9256;  // vLLM's

  int64_t size = 0;        // --data-parallel-size; 0: not given
  int64_t size_local = 0;  // 0: not given
  int64_t rank = -1;       // -1: not given
  int64_t start_rank = -1;
  std::string address;
  int64_t rpc_port = 29550;
  std::string host;  // this host, as the other ranks reach it; "": the way to the leader tells
  bool hybrid_lb = false;
  bool external_lb = false;
  bool multi_port_lb = false;
  int64_t supervisor_port = kSupervisorPort;
  bool headless = false;
  bool expert_parallel = false;
  int64_t node_id = -1;
  std::string key_file;
  std::string transport = "tcp";  // between hosts
  std::string expert_load_file;
  std::string eplb_config;  // JSON
  std::chrono::seconds start_timeout{1800};

  void declare(OptionSet& options);
  // kInvalidArgument with the flag that is wrong.
  Result<GroupPlan> resolve(const std::optional<LwsEnvironment>& lws) const;
  // The key of --data-parallel-key-file, if there is one.
  Result<std::optional<fabric::PresharedKey>> key() const;

 private:
  void declare_meeting(OptionSet& options);
  void declare_placement(OptionSet& options);
  Status place_ranks(GroupPlan& plan, const std::optional<LwsEnvironment>& lws) const;
  Status check_door(const GroupPlan& plan, bool is_default_pod) const;
  Status choose_door(GroupPlan& plan, bool is_default_pod) const;
  Status place_meeting_of_doors(GroupPlan& plan) const;
};

// Without a key nothing leaves a host, unless the operator says so: kInvalidArgument.
Status check_may_leave(const net::Address& meeting, bool has_key, bool insecure);

}  // namespace wideep::cmd
