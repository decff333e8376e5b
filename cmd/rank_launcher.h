// Several ranks on this host behind one door: starts a process for each, keeps them running, and
// balances over them.
//
//   client -> Gateway (this process) -> the rank with the least of 4 x waiting + running
//                |                          ^ a Unix socket in a folder of our own, without keys
//   Supervisor --+-- starts, restarts, ends the ranks: all of a group at once
//
// A rank that does not answer for 20 s is ended (launcher::HealthWatch).
// Ranks that share experts live and die together; independent ones are restarted one by one. While
// a group is not ready the door answers 503 with Retry-After.
//
// Over several hosts there may be one door, on the first: the ranks of the others are reached
// through launcher::HostDoor there and launcher::HostLink here, by the same kind of socket.
#pragma once

#include "base/result.h"
#include "cmd/group_flags.h"
#include "cmd/listen_options.h"
#include "cmd/rank_processes.h"
#include "fabric/tls.h"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace wideep::cmd {

struct RankLauncherOptions {
  GroupPlan plan;
  std::optional<fabric::PresharedKey> key;  // of the group
  ListenFlags listen;                       // of the door
  std::string what;                         // is served, for the log
  int64_t max_num_seqs = 64;
  std::chrono::milliseconds start_timeout{};  // of the ranks
  bool moves_kv = false;                      // requests may carry kv_transfer_params to the ranks
  RankArguments arguments;
};

// Serves until SIGTERM or SIGINT; the exit status then, which is that of the ranks if they cannot
// start.
Result<int> serve_ranks(const RankLauncherOptions& options);

}  // namespace wideep::cmd
