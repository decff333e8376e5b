// Starts groups of processes that live and die together, and keeps them running: LeaderWorkerSet's
// contract, without Kubernetes.
//
// When one member of a group ends, the rest has `farewell` to end by itself (to tell its clients),
// is ended then, and the whole group is started again, after a back-off that doubles up to a cap; a
// group that has run well for `stable_after` starts counting anew; one that fails `restarts_max`
// times in a row is given up. A group is ready when every member has been reported ready. Thread:
// run() on one thread; everything else from any.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "fabric/event.h"
#include "launcher/process.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace wideep::launcher {

struct RestartOptions {
  int restarts_max = 5;  // in a row
  std::chrono::milliseconds backoff_first{500};
  std::chrono::milliseconds backoff_max{30'000};
  std::chrono::milliseconds stable_after{60'000};
  // Exit codes after which another start cannot help, such as a wrong flag: the group is given up,
  // unless it has been ready before.
  std::vector<int> hopeless_codes;
};

struct GroupSpec {
  std::string name;
  std::vector<ProcessSpec> members;  // the leader first
  RestartOptions restart;
  std::chrono::milliseconds farewell{0};  // between the end of one and SIGKILL for the others
};

enum class GroupState : uint8_t {
  kStarting,
  kReady,
  kEnding,  // a member has ended, the others are about to
  kBackingOff,
  kFailed,
  kStopping,
  kStopped
};
std::string_view name(GroupState state);

struct GroupStatus {
  std::string name;
  GroupState state = GroupState::kStarting;
  int64_t num_restarts = 0;  // since the supervisor began
  std::string last_failure;  // "decode-0-1: killed by SIGKILL"
  ExitStatus last_exit;      // of the member that ended last by itself
  std::vector<int> pids;     // of the members; empty while there are none
  std::vector<bool> ready;   // of the members
  int64_t incarnation = 0;   // counts starts; readiness is reported for one
};

struct SupervisorOptions {
  std::chrono::milliseconds stop_grace{10'000};  // between SIGTERM and SIGKILL at the end
  // Each line of a member's output; on the supervisor's thread.
  std::function<void(const std::string& member, const std::string& line)> on_line;
  // A group changed its state; on the supervisor's thread.
  std::function<void(const GroupStatus& status)> on_change;
};

class Supervisor {
 public:
  explicit Supervisor(SupervisorOptions options);
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // Before run().
  void add(GroupSpec spec);
  // Runs the groups until stop(), then ends them in reverse order of their addition, and returns
  // when all are gone. An error if a group was given up; everything is ended then, too.
  Status run();
  void stop();
  // Like stop(), also when that has been called before: nothing is waited for, SIGKILL comes now.
  void stop_at_once();

  // Member `index` of the group's present incarnation answers requests. Late reports of an older
  // one are dropped.
  void report_ready(const std::string& group, int64_t incarnation, size_t index);
  // It runs and is of no use, for instance stuck: the group is ended and started again as if it had
  // died. `why`: "no progress for 60 s".
  void report_failed(const std::string& group,
                     int64_t incarnation,
                     size_t index,
                     const std::string& why);
  std::vector<GroupStatus> status() const;

 private:
  struct Group {
    GroupSpec spec;
    GroupStatus status;
    std::vector<std::unique_ptr<Process>> processes;
    std::string reported_failure;  // guarded by mutex_; "" if there is none
    int failures_in_row = 0;
    bool was_ready = false;    // ever
    bool is_hopeless = false;  // another start cannot help
    TimePoint started{};
    TimePoint restart_at{};
    TimePoint killed_at{};  // when the farewell is over
  };

  const Group* failed_group() const;
  // The group if `incarnation` is its present one and has a member of this index. With mutex_ held.
  Group* find_present(const std::string& group, int64_t incarnation, size_t index);
  void start(Group& group);
  void note_failure(Group& group, const std::string& why);
  void conclude(Group& group);
  size_t look_for_ended(Group& group);
  void judge_exit(Group& group, const ExitStatus& status);
  void look_after(Group& group);
  void drain_output(Group& group);
  void end_all();
  void end(Group& group);
  void wait(Duration timeout);
  void set_state(Group& group, GroupState state);
  Duration time_to_next_event() const;

  SupervisorOptions options_;
  mutable std::mutex mutex_;  // guards GroupStatus and reported_failure of each group
  std::vector<std::unique_ptr<Group>> groups_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> at_once_{false};
  fabric::Event wake_;  // stop() and reports interrupt the wait
};

}  // namespace wideep::launcher
