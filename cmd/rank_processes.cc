#include "cmd/rank_processes.h"

#include "base/file.h"
#include "base/log.h"
#include "cmd/verb.h"

#include <fmt/format.h>

#include <cstdio>
#include <thread>

namespace wideep::cmd {
namespace {

// How long ranks whose peer is gone may take to tell their clients. A stopped rank is noticed after
// the liveness deadline, by then the others have ended.
constexpr std::chrono::milliseconds kFarewell{3'000};

launcher::GroupSpec group_of(std::string name, std::vector<launcher::ProcessSpec> members) {
  launcher::GroupSpec group{
      .name = std::move(name), .members = std::move(members), .farewell = kFarewell};
  group.restart.hopeless_codes = {kExitUsage, kExitBadModel};
  return group;
}

int exit_status_of(const std::vector<launcher::GroupStatus>& groups) {
  for (const launcher::GroupStatus& status : groups) {
    if (status.last_failure.empty()) continue;
    const int code = status.last_exit.code;
    // Killed, or gone without a reason of its own: the others have lost it.
    return code == kExitOk ? kExitGroupEnded : code;
  }
  return kExitFailed;
}

}  // namespace

std::string own_meeting(const GroupPlan& plan, const std::string& folder) {
  return plan.is_on_one_host() ? fmt::format("unix:{}/meeting", folder) : "";
}

Result<std::vector<launcher::GroupSpec>> rank_groups(const GroupPlan& plan,
                                                     const std::vector<RankPlace>& places,
                                                     const RankArguments& arguments) {
  WD_ASSIGN_OR_RETURN(const std::string program, program_path());
  std::vector<launcher::ProcessSpec> members;
  for (const RankPlace& place : places) {
    members.push_back({.name = fmt::format("rank {}", place.rank),
                       .command = {program},
                       .environment = {},
                       .dropped_prefix = "WIDEEP_"});
    const std::vector<std::string> more = arguments(place);
    members.back().command.insert(members.back().command.end(), more.begin(), more.end());
  }
  std::vector<launcher::GroupSpec> groups;
  if (plan.is_group()) {
    groups.push_back(group_of("ranks", std::move(members)));
  } else {
    for (size_t i = 0; i < places.size(); ++i)
      groups.push_back(group_of(fmt::format("rank-{}", places[i].rank), {members[i]}));
  }
  return groups;
}

launcher::SupervisorOptions rank_supervision(std::chrono::milliseconds shutdown_timeout) {
  launcher::SupervisorOptions supervisor;
  supervisor.stop_grace = shutdown_timeout + kFarewell;
  supervisor.on_line = [](const std::string& member, const std::string& line) {
    fmt::print(stderr, "{}: {}\n", member, line);
  };
  return supervisor;
}

std::vector<launcher::Member> members_of(const std::vector<launcher::GroupSpec>& groups,
                                         const std::vector<RankPlace>& places) {
  std::vector<launcher::Member> members;
  for (const launcher::GroupSpec& group : groups) {
    for (size_t i = 0; i < group.members.size(); ++i)
      members.push_back({.name = group.members[i].name,
                         .group = group.name,
                         .index = i,
                         .address = places[members.size()].address});
  }
  return members;
}

int run_ranks(launcher::Supervisor& supervisor,
              Service& service,
              const std::function<void()>& drain_door) {
  Status outcome;
  std::thread thread([&] {
    outcome = supervisor.run();
    service.stop();
  });
  service.run([&] {
    drain_door();
    supervisor.stop();
    thread.join();  // while the loop turns: ranks wait a moment for their connections to be closed
  });
  if (outcome) return kExitOk;
  log_error("{}", outcome.error().message);
  return exit_status_of(supervisor.status());
}

}  // namespace wideep::cmd
