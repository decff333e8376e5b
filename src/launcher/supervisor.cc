#include "launcher/supervisor.h"

#include "base/check.h"
#include "base/log.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <ranges>
#include <utility>

namespace wideep::launcher {
namespace {

TimePoint now() {
  return real_clock().now();
}

}  // namespace

std::string_view name(GroupState state) {
  static constexpr std::array<std::string_view, 7> kNames = {
      "starting", "ready", "ending", "backing off", "failed", "stopping", "stopped"};
  return kNames[static_cast<size_t>(state)];
}

Supervisor::Supervisor(SupervisorOptions options) : options_(std::move(options)) {
  Result<fabric::Event> wake = fabric::Event::create();
  WD_CHECK(wake.has_value());
  wake_ = *std::move(wake);
}

Supervisor::~Supervisor() = default;

void Supervisor::add(GroupSpec spec) {
  auto group = std::make_unique<Group>();
  group->status.name = spec.name;
  group->spec = std::move(spec);
  const std::scoped_lock lock(mutex_);
  groups_.push_back(std::move(group));
}

Status Supervisor::run() {
  for (const auto& group : groups_)
    start(*group);
  const Group* given_up = failed_group();
  while (!stopping_.load() && given_up == nullptr) {
    wait(time_to_next_event());
    for (const auto& group : groups_)
      look_after(*group);
    given_up = failed_group();
  }
  end_all();
  if (given_up == nullptr) return {};
  return error(ErrorCode::kUnavailable, "group {} is given up after {} failure{} in a row: {}",
               given_up->spec.name, given_up->failures_in_row,
               given_up->failures_in_row > 1 ? "s" : "", given_up->status.last_failure);
}

const Supervisor::Group* Supervisor::failed_group() const {
  const auto it = std::ranges::find_if(
      groups_, [](const auto& group) { return group->status.state == GroupState::kFailed; });
  return it == groups_.end() ? nullptr : it->get();
}

void Supervisor::stop() {
  stopping_.store(true);
  wake_.set();
}

void Supervisor::stop_at_once() {
  at_once_.store(true);
  stop();
}

void Supervisor::start(Group& group) {
  group.started = now();
  {
    const std::scoped_lock lock(mutex_);
    ++group.status.incarnation;
    group.reported_failure.clear();
    group.status.ready.assign(group.spec.members.size(), false);
  }
  for (const ProcessSpec& member : group.spec.members) {
    auto process = Process::start(member);
    if (!process) {
      note_failure(group, process.error().message);
      conclude(group);
      return;
    }
    group.processes.push_back(std::move(*process));
  }
  {
    const std::scoped_lock lock(mutex_);
    group.status.pids.clear();
    for (const auto& process : group.processes)
      group.status.pids.push_back(process->pid());
  }
  set_state(group, GroupState::kStarting);
}

void Supervisor::note_failure(Group& group, const std::string& why) {
  {
    const std::scoped_lock lock(mutex_);
    group.status.last_failure = why;
  }
  log_error("group {}: {}", group.spec.name, why);
  group.killed_at = now() + group.spec.farewell;
  set_state(group, GroupState::kEnding);
}

// Ends what is left of the group and decides when, and whether, it starts again.
void Supervisor::conclude(Group& group) {
  if (now() - group.started >= group.spec.restart.stable_after) group.failures_in_row = 0;
  ++group.failures_in_row;
  drain_output(group);
  group.processes.clear();
  const bool give_up = group.is_hopeless || group.failures_in_row > group.spec.restart.restarts_max;
  auto backoff = group.spec.restart.backoff_first;
  for (int i = 1; i < group.failures_in_row && backoff < group.spec.restart.backoff_max; ++i)
    backoff *= 2;
  backoff = std::min(backoff, group.spec.restart.backoff_max);
  group.restart_at = now() + backoff;
  {
    const std::scoped_lock lock(mutex_);
    group.status.pids.clear();
  }
  log_error("group {}: {}", group.spec.name,
            give_up ? "given up" : fmt::format("all of it starts again in {} ms", backoff.count()));
  set_state(group, give_up ? GroupState::kFailed : GroupState::kBackingOff);
}

void Supervisor::judge_exit(Group& group, const ExitStatus& status) {
  {
    const std::scoped_lock lock(mutex_);
    group.status.last_exit = status;
  }
  const auto& codes = group.spec.restart.hopeless_codes;
  group.is_hopeless = status.signal == 0 && !group.was_ready &&
                      std::ranges::find(codes, status.code) != codes.end();
}

void Supervisor::look_after(Group& group) {
  if (group.status.state == GroupState::kBackingOff) {
    if (now() < group.restart_at) return;
    {
      const std::scoped_lock lock(mutex_);
      ++group.status.num_restarts;
    }
    start(group);
    return;
  }
  drain_output(group);
  const size_t num_ended = look_for_ended(group);
  if (group.status.state == GroupState::kEnding) {
    if (num_ended == group.processes.size() || now() >= group.killed_at) conclude(group);
    return;
  }
  bool all_ready = false;
  std::string reported;
  {
    const std::scoped_lock lock(mutex_);
    reported = std::exchange(group.reported_failure, {});
    all_ready = std::ranges::all_of(group.status.ready, std::identity{});
  }
  if (!reported.empty()) {
    note_failure(group, reported);
    conclude(group);  // whoever is stuck does not end by itself
    return;
  }
  if (group.status.state == GroupState::kStarting && all_ready) {
    group.was_ready = true;
    set_state(group, GroupState::kReady);
  }
}

// How many members have ended. The first that is seen gives the failure its name: one that was
// killed before one that gave up because of it.
size_t Supervisor::look_for_ended(Group& group) {
  size_t num_ended = 0;
  std::optional<size_t> culprit;
  for (size_t i = 0; i < group.processes.size(); ++i) {
    const auto exit = group.processes[i]->exit_status();
    if (!exit) continue;
    ++num_ended;
    if (!culprit || (exit->signal != 0 && group.processes[*culprit]->exit_status()->signal == 0))
      culprit = i;
  }
  if (culprit && group.status.state != GroupState::kEnding) {
    const ExitStatus exit = *group.processes[*culprit]->exit_status();
    judge_exit(group, exit);
    note_failure(group, group.spec.members[*culprit].name + ": " + exit.describe());
  }
  return num_ended;
}

void Supervisor::drain_output(Group& group) {
  for (size_t i = 0; i < group.processes.size(); ++i) {
    for (const std::string& line : group.processes[i]->read_lines()) {
      if (options_.on_line) options_.on_line(group.spec.members[i].name, line);
    }
  }
}

void Supervisor::end_all() {
  for (const auto& group : std::views::reverse(groups_))
    end(*group);
}

void Supervisor::end(Group& group) {
  set_state(group, GroupState::kStopping);
  for (const auto& process : group.processes)
    process->signal(SIGTERM);
  const TimePoint give_up = now() + options_.stop_grace;
  const auto all_gone = [&] {
    return std::ranges::all_of(
        group.processes, [](const auto& process) { return process->exit_status().has_value(); });
  };
  while (!all_gone() && now() < give_up && !at_once_.load()) {
    wait(std::min<Duration>(give_up - now(), std::chrono::milliseconds(100)));
    drain_output(group);
  }
  drain_output(group);
  group.processes.clear();
  {
    const std::scoped_lock lock(mutex_);
    group.status.pids.clear();
  }
  set_state(group, GroupState::kStopped);
}

// Returns when a process has ended or written, somebody set wake_, or after `timeout`.
void Supervisor::wait(Duration timeout) {
  std::vector<pollfd> descriptors = {{wake_.fd(), POLLIN, 0}};
  for (const auto& group : groups_) {
    for (const auto& process : group->processes) {
      // An end that look_after() has not seen yet must end this wait: it is not asked for here.
      if (!process->has_ended()) descriptors.push_back({process->exit_descriptor(), POLLIN, 0});
      if (process->output_descriptor() >= 0)
        descriptors.push_back({process->output_descriptor(), POLLIN, 0});
    }
  }
  const auto milliseconds =
      std::chrono::ceil<std::chrono::milliseconds>(std::max(timeout, Duration{})).count();
  poll(descriptors.data(), descriptors.size(), static_cast<int>(milliseconds));
  wake_.clear();
}

Duration Supervisor::time_to_next_event() const {
  Duration next = std::chrono::seconds(60);
  for (const auto& group : groups_) {
    if (group->status.state == GroupState::kBackingOff)
      next = std::min<Duration>(next, group->restart_at - now());
    if (group->status.state == GroupState::kEnding)
      next = std::min<Duration>(next, group->killed_at - now());
  }
  return next;
}

void Supervisor::set_state(Group& group, GroupState state) {
  GroupStatus copy;
  {
    const std::scoped_lock lock(mutex_);
    group.status.state = state;
    copy = group.status;
  }
  if (options_.on_change) options_.on_change(copy);
}

Supervisor::Group* Supervisor::find_present(const std::string& group,
                                            int64_t incarnation,
                                            size_t index) {
  const auto it =
      std::ranges::find_if(groups_, [&](const auto& g) { return g->spec.name == group; });
  if (it == groups_.end() || (*it)->status.incarnation != incarnation ||
      index >= (*it)->status.ready.size())
    return nullptr;
  return it->get();
}

void Supervisor::report_ready(const std::string& group, int64_t incarnation, size_t index) {
  {
    const std::scoped_lock lock(mutex_);
    Group* present = find_present(group, incarnation, index);
    if (present == nullptr || present->status.ready[index]) return;
    present->status.ready[index] = true;
  }
  wake_.set();
}

void Supervisor::report_failed(const std::string& group,
                               int64_t incarnation,
                               size_t index,
                               const std::string& why) {
  {
    const std::scoped_lock lock(mutex_);
    Group* present = find_present(group, incarnation, index);
    if (present == nullptr) return;
    present->reported_failure = present->spec.members[index].name + ": " + why;
  }
  wake_.set();
}

std::vector<GroupStatus> Supervisor::status() const {
  const std::scoped_lock lock(mutex_);
  std::vector<GroupStatus> all;
  for (const auto& group : groups_)
    all.push_back(group->status);
  return all;
}

}  // namespace wideep::launcher
