// Several ranks on this host, each with an API of its own and nobody in front of them: vLLM's
// --data-parallel-multi-port-external-lb.
//
//   balancer -> rank i, at --port + i        whoever asks "are you all well?" -> this process
//                  ^                                                                 |
//   Supervisor ----+-- starts and ends them; HealthWatch asks each for its /health --+
//
// Ranks that share experts are not restarted here: when one of them ends, or gets stuck, all end,
// and this process with kExitGroupEnded, so that who started it starts the hosts of the group
// again. Independent ranks are restarted one by one.
#pragma once

#include "base/result.h"
#include "cmd/group_flags.h"
#include "cmd/listen_options.h"
#include "cmd/rank_processes.h"

#include <chrono>
#include <cstdint>
#include <string>

namespace wideep::cmd {

struct RankSupervisorOptions {
  GroupPlan plan;
  ListenFlags listen;  // of the first rank; port 0: each gets one that is free
  int64_t port = 0;    // of this process; 0: one that is free
  std::string what;    // is served, for the log
  std::chrono::seconds start_timeout{1800};
  // `place` has their address.
  RankArguments arguments;
};

// The ports that the ranks and this process would have. kInvalidArgument if they cannot be.
Status check_ports(const RankSupervisorOptions& options);

// Serves until SIGTERM or SIGINT, or until a group of ranks has ended; the exit status then.
Result<int> supervise_ranks(const RankSupervisorOptions& options);

}  // namespace wideep::cmd
