// The processes of one contestant of `wideep bench ep`, as the bench holds them: it gives orders,
// all ranks obey at the same time, and it waits for all answers. Between orders they block in a
// read and cost nothing, so that contestants can take turns on one machine.
//
// Thread: one.
#pragma once

#include "base/clock.h"
#include "cmd/ep_trial.h"

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace wideep::cmd {

class EpGroup {
  struct Started {};  // what only start() can hand in

 public:
  // Starts `num_ranks` processes: `launch` gets the name under which they call() and returns the
  // pids of what it started. kTimeout when not all call.
  static Result<std::unique_ptr<EpGroup>> start(
      int32_t num_ranks,
      const std::function<Result<std::vector<pid_t>>(const std::string& name)>& launch);

  explicit EpGroup(Started /*started*/) {}

  // Sends everybody home.
  ~EpGroup();

  // [num_ranks]. An error: the first that a rank reported, or kTimeout / kPeerLost naming the rank.
  Result<std::vector<EpAnswer>> order(const EpOrder& order);

  // On the rank's side: the connection to the bench, on which it is known as `rank`.
  static Result<fabric::UniqueFd> call(const std::string& name, RankId rank);

 private:
  Result<EpAnswer> answer_of(size_t rank, TimePoint deadline);

  std::vector<fabric::UniqueFd> ranks_;
  std::vector<pid_t> children_;
};

// Forks `num_ranks` processes that run `body`. For a single-threaded process.
std::vector<pid_t> fork_ranks(int32_t num_ranks, const std::function<int(RankId)>& body);
// Starts a program; its standard output goes to standard error.
Result<std::vector<pid_t>> start_program(const std::vector<std::string>& command);

}  // namespace wideep::cmd
