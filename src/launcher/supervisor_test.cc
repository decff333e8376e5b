#include "launcher/supervisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <thread>

namespace wideep::launcher {
namespace {

using std::chrono::milliseconds;

ProcessSpec shell(const std::string& name,
                  const std::string& script,
                  std::map<std::string, std::string> environment = {}) {
  return {name, {"/bin/sh", "-c", script}, std::move(environment)};
}

// A supervisor on its own thread, and what it said.
class Watched {
 public:
  explicit Watched(milliseconds stop_grace = milliseconds(5000))
      : supervisor({.stop_grace = stop_grace,
                    .on_line =
                        [this](const std::string& member, const std::string& line) {
                          if (on_line) on_line(line);
                          note(member + "> " + line);
                        },
                    .on_change =
                        [this](const GroupStatus& status) {
                          if (on_state) on_state(status);
                          note(status.name + " is " + std::string(name(status.state)));
                        }}) {}

  ~Watched() { stop(); }

  void start() {
    thread_ = std::thread([this] { result = supervisor.run(); });
  }

  void stop() {
    supervisor.stop();
    if (thread_.joinable()) thread_.join();
  }

  void join() { thread_.join(); }

  // Waits, at most 60 s, until `text` has been said `count` times.
  bool hears(const std::string& text, int count = 1) {
    std::unique_lock lock(mutex_);
    return heard_.wait_for(lock, std::chrono::seconds(60),
                           [&] { return std::ranges::count(said_, text) >= count; });
  }

  void note(std::string text) {
    const std::scoped_lock lock(mutex_);
    said_.push_back(std::move(text));
    heard_.notify_all();
  }

  std::function<void(const std::string&)> on_line;
  std::function<void(const GroupStatus&)> on_state;
  Supervisor supervisor;
  Status result;

 private:
  std::mutex mutex_;
  std::condition_variable heard_;
  std::vector<std::string> said_;
  std::thread thread_;
};

RestartOptions quick() {
  return {.restarts_max = 3, .backoff_first = milliseconds(1), .backoff_max = milliseconds(4)};
}

TEST(Supervisor, GivesEachMemberItsEnvironmentAndPrefixesItsLines) {
  Watched watched;
  watched.supervisor.add(
      {"g",
       {shell("g-0", "echo i am $LWS_WORKER_INDEX; sleep 100", {{"LWS_WORKER_INDEX", "0"}}),
        shell("g-1", "echo i am $LWS_WORKER_INDEX; sleep 100", {{"LWS_WORKER_INDEX", "1"}})}});
  watched.start();
  EXPECT_TRUE(watched.hears("g-0> i am 0"));
  EXPECT_TRUE(watched.hears("g-1> i am 1"));
}

TEST(Supervisor, RestartsTheWholeGroupWhenOneMemberDies) {
  Watched watched;
  watched.supervisor.add(
      {"g",
       {shell("g-0", "echo up; exec sleep 100"), shell("g-1", "echo up; exec sleep 100")},
       quick()});
  watched.start();
  ASSERT_TRUE(watched.hears("g-0> up"));
  ASSERT_TRUE(watched.hears("g-1> up"));
  const GroupStatus before = watched.supervisor.status().front();
  kill(before.pids.at(1), SIGKILL);
  ASSERT_TRUE(watched.hears("g is backing off"));
  ASSERT_TRUE(watched.hears("g-0> up", 2));
  ASSERT_TRUE(watched.hears("g-1> up", 2));
  const GroupStatus after = watched.supervisor.status().front();
  EXPECT_EQ(after.last_failure, "g-1: killed by SIGKILL");
  EXPECT_EQ(after.num_restarts, 1);
  EXPECT_NE(after.pids.at(0), before.pids.at(0));
  EXPECT_NE(kill(before.pids.at(0), 0), 0);  // the old leader is gone
}

TEST(Supervisor, NoticesAnEndThatComesBetweenItsLookAndItsWait) {
  Watched watched;
  watched.on_state = [](const GroupStatus& status) {
    if (status.state != GroupState::kReady || status.incarnation != 1) return;
    kill(status.pids.at(0), SIGKILL);
    siginfo_t ended{};
    waitid(P_PID, static_cast<id_t>(status.pids.at(0)), &ended, WEXITED | WNOWAIT);
  };
  watched.supervisor.add({"g", {shell("g-0", "exec sleep 100")}, quick()});
  watched.start();
  ASSERT_TRUE(watched.hears("g is starting"));
  watched.supervisor.report_ready("g", 1, 0);
  EXPECT_TRUE(watched.hears("g is starting", 2));
}

TEST(Supervisor, IsReadyWhenEveryMemberIsAndForgetsLateReports) {
  Watched watched;
  watched.supervisor.add(
      {"g", {shell("g-0", "exec sleep 100"), shell("g-1", "exec sleep 100")}, quick()});
  watched.start();
  ASSERT_TRUE(watched.hears("g is starting"));
  watched.supervisor.report_ready("g", 1, 0);
  watched.supervisor.report_ready("g", 7, 1);
  watched.supervisor.report_ready("g", 1, 9);
  EXPECT_EQ(watched.supervisor.status().front().state, GroupState::kStarting);
  watched.supervisor.report_ready("g", 1, 1);
  EXPECT_TRUE(watched.hears("g is ready"));
  kill(watched.supervisor.status().front().pids.at(0), SIGKILL);
  ASSERT_TRUE(watched.hears("g is starting", 2));
  EXPECT_EQ(watched.supervisor.status().front().ready, (std::vector<bool>{false, false}));
}

TEST(Supervisor, RestartsAGroupThatIsReportedStuckAndForgetsLateReports) {
  Watched watched;
  watched.supervisor.add({"g", {shell("g-0", "exec sleep 100")}, quick()});
  watched.start();
  ASSERT_TRUE(watched.hears("g is starting"));
  watched.supervisor.report_failed("g", 0, 0, "of an incarnation that never was");
  watched.supervisor.report_failed("g", 1, 0, "no progress");
  ASSERT_TRUE(watched.hears("g is starting", 2));
  const GroupStatus after = watched.supervisor.status().front();
  EXPECT_EQ(after.last_failure, "g-0: no progress");
  EXPECT_EQ(after.num_restarts, 1);
}

TEST(Supervisor, EndsAtOnceWhenToldTwice) {
  Watched watched(std::chrono::hours(1));
  watched.supervisor.add({"g", {shell("g-0", "trap '' TERM; echo up; while :; do sleep 1; done")}});
  watched.start();
  ASSERT_TRUE(watched.hears("g-0> up"));
  watched.supervisor.stop();
  ASSERT_TRUE(watched.hears("g is stopping"));
  watched.supervisor.stop_at_once();
  EXPECT_TRUE(watched.hears("g is stopped"));
}

TEST(Supervisor, GivesUpAfterTooManyFailuresInARow) {
  Watched watched;
  watched.supervisor.add({"bad", {shell("bad-0", "exit 3")}, quick()});
  watched.supervisor.add({"good", {shell("good-0", "exec sleep 100")}});
  watched.start();
  watched.join();
  ASSERT_FALSE(watched.result);
  EXPECT_THAT(watched.result.error().message, ::testing::HasSubstr("bad-0: exit code 3"));
  EXPECT_EQ(watched.supervisor.status().at(1).state, GroupState::kStopped);
}

TEST(Supervisor, DoesNotRepeatWhatCannotHelp) {
  Watched watched;
  RestartOptions restart{.restarts_max = 1000, .backoff_first = std::chrono::hours(1)};
  restart.hopeless_codes = {3};
  watched.supervisor.add({"bad", {shell("bad-0", "exit 3")}, restart});
  watched.start();
  watched.join();
  ASSERT_FALSE(watched.result);
  EXPECT_THAT(watched.result.error().message, ::testing::HasSubstr("bad-0: exit code 3"));
}

TEST(Supervisor, SaysWhenAProgramCannotBeStarted) {
  Watched watched;
  watched.supervisor.add({"g", {{"g-0", {"/no/such/program"}, {}}}, {.restarts_max = 0}});
  watched.start();
  watched.join();
  ASSERT_FALSE(watched.result);
  EXPECT_THAT(watched.result.error().message, ::testing::HasSubstr("No such file"));
}

TEST(Supervisor, EndsProcessesThatIgnoreSigtermAndTheirChildren) {
  Watched watched(milliseconds(50));
  std::atomic<int> child{0};
  watched.on_line = [&](const std::string& line) {
    if (line.starts_with("child ")) child = std::stoi(line.substr(6));
  };
  watched.supervisor.add(
      {"g", {shell("g-0", "trap '' TERM; sleep 1000 & echo child $!; echo up; wait; wait")}});
  watched.start();
  ASSERT_TRUE(watched.hears("g-0> up"));
  pollfd child_ended = {static_cast<int>(syscall(SYS_pidfd_open, child.load(), 0)), POLLIN, 0};
  ASSERT_GE(child_ended.fd, 0);
  watched.stop();
  EXPECT_TRUE(watched.hears("g is stopped"));
  EXPECT_EQ(poll(&child_ended, 1, 60'000), 1);
  close(child_ended.fd);
}

// The second member ends by itself once the first has: it says so, and nobody kills it before.
TEST(Supervisor, LetsTheOthersEndByThemselvesFirst) {
  Watched watched;
  GroupSpec group{.name = "g", .members = {}, .restart = {.restarts_max = 0}};
  group.farewell = milliseconds(20'000);
  group.members.push_back(shell("g-0", "exit 1"));
  group.members.push_back(shell("g-1", "sleep 0.2; echo goodbye; exit 4"));
  watched.supervisor.add(std::move(group));
  watched.start();
  EXPECT_TRUE(watched.hears("g-1> goodbye"));
  EXPECT_TRUE(watched.hears("g is ending"));
  EXPECT_TRUE(watched.hears("g is failed"));
  watched.join();
  EXPECT_EQ(watched.supervisor.status()[0].last_failure, "g-0: exit code 1");
}

TEST(Supervisor, KillsTheOthersWhenTheirFarewellIsOver) {
  Watched watched;
  GroupSpec group{.name = "g", .members = {}, .restart = {.restarts_max = 0}};
  group.farewell = milliseconds(50);
  group.members.push_back(shell("g-0", "exit 1"));
  group.members.push_back(shell("g-1", "trap '' TERM; sleep 1000"));
  watched.supervisor.add(std::move(group));
  watched.start();
  EXPECT_TRUE(watched.hears("g is failed"));
  watched.join();
}

TEST(Supervisor, DoesNotStartAgainWhatCannotGetBetter) {
  Watched watched;
  watched.supervisor.add({.name = "g",
                          .members = {shell("g-0", "exit 3")},
                          .restart = {.restarts_max = 5, .hopeless_codes = {2, 3}}});
  watched.start();
  EXPECT_TRUE(watched.hears("g is failed"));
  watched.join();
  const GroupStatus status = watched.supervisor.status()[0];
  EXPECT_EQ(status.num_restarts, 0);
  EXPECT_EQ(status.last_exit.code, 3);
}

TEST(Supervisor, PassesOnOnlyTheVariablesThatAMemberMaySee) {
  setenv("WD_TEST_SECRET", "x", 1);
  Watched watched;
  ProcessSpec member = shell("g-0", "echo secret=$WD_TEST_SECRET home=${HOME:+set}; sleep 1000");
  member.dropped_prefix = "WD_TEST_";
  watched.supervisor.add({.name = "g", .members = {member}, .restart = {}});
  watched.start();
  EXPECT_TRUE(watched.hears("g-0> secret= home=set"));
  unsetenv("WD_TEST_SECRET");
}

}  // namespace
}  // namespace wideep::launcher
