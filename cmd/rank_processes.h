// The ranks of this host as child processes: this program again, with other arguments. What all
// who start ranks have in common; what stands in front of them is theirs.
#pragma once

#include "base/result.h"
#include "cmd/group_flags.h"
#include "cmd/run_until_signal.h"
#include "launcher/deployment.h"
#include "launcher/supervisor.h"
#include "net/address.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace wideep::cmd {

// What one rank's process is told, besides what all are told.
struct RankPlace {
  int32_t rank = 0;
  net::Address address;      // where it serves its API
  std::string api_key_file;  // with the keys of its clients; "": it asks for none
  std::string meeting;       // where the ranks meet; "": as the plan says
};

// The arguments with which this program becomes that rank.
using RankArguments = std::function<std::vector<std::string>(const RankPlace& place)>;

// Where the ranks of this host meet if there are no others; "": as the plan says.
std::string own_meeting(const GroupPlan& plan, const std::string& folder);

// One group whose ranks share experts, or a group for each rank: their members, taken together, are
// the ranks in the order of `places`.
Result<std::vector<launcher::GroupSpec>> rank_groups(const GroupPlan& plan,
                                                     const std::vector<RankPlace>& places,
                                                     const RankArguments& arguments);

// Their lines go to stderr; requests under way may take `shutdown_timeout` at the end.
launcher::SupervisorOptions rank_supervision(std::chrono::milliseconds shutdown_timeout);

// The ranks of these groups as HealthWatch knows them, in the order of `places`.
std::vector<launcher::Member> members_of(const std::vector<launcher::GroupSpec>& groups,
                                         const std::vector<RankPlace>& places);

// Runs the ranks, and the service's loop, until a signal or until a group is given up. `drain_door`
// comes before the ranks are ended, with the loop running. What to exit with: if a group was given
// up, what its ranks failed with.
int run_ranks(launcher::Supervisor& supervisor,
              Service& service,
              const std::function<void()>& drain_door);

}  // namespace wideep::cmd
