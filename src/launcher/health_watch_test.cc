#include "launcher/health_watch.h"

#include "base/test_clock.h"
#include "http/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace wideep::launcher {
namespace {

using std::chrono::milliseconds;

// A supervised process, and a server that answers in its place.
class Watched {
 public:
  explicit Watched(Member::Kind kind,
                   milliseconds interval = milliseconds(5),
                   milliseconds unhealthy_after = milliseconds(50),
                   const Clock& clock = real_clock())
      : supervisor({.on_change = [this](const GroupStatus&) { notify(); }}),
        server(thread.loop(), {}) {
    server.route("GET", "/health", [this](const http::Request&, http::Responder responder) {
      responder.send({.status = status.load()});
    });
    server.route("GET", "/metrics", [](const http::Request&, http::Responder responder) {
      responder.send({.body = "vllm:num_requests_running 3\n"});
    });
    const net::Address address = *server.listen({"127.0.0.1", 0, {}});
    supervisor.add({"g",
                    {{"g-0", {"/bin/sh", "-c", "exec sleep 1000"}, {}}},
                    {.restarts_max = 100, .backoff_first = milliseconds(1)}});
    run = std::thread([this] { result = supervisor.run(); });
    thread.loop().run_and_wait([&] {
      watch = std::make_unique<HealthWatch>(
          thread.loop(), client, supervisor, std::vector<Member>{{"g-0", "g", 0, kind, address}},
          HealthWatchOptions{.interval = interval,
                             .interval_ready = milliseconds(5),
                             .unhealthy_after = unhealthy_after,
                             .start_timeout = milliseconds(60'000),
                             .on_round = [this] { notify(); }},
          clock);
    });
  }

  ~Watched() {
    thread.loop().run_and_wait([&] { watch.reset(); });
    supervisor.stop();
    run.join();
  }

  // Waits, at most 60 s, until `condition` holds.
  template <typename Condition>
  bool comes(Condition condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(60), condition);
  }

  GroupStatus group() const { return supervisor.status().front(); }

  std::atomic<int> status{503};
  Supervisor supervisor;
  net::LoopThread thread;
  http::Client client{thread.loop()};
  http::Server server;
  std::unique_ptr<HealthWatch> watch;
  std::thread run;
  Status result;

 private:
  void notify() { changed.notify_all(); }

  std::mutex mutex;
  std::condition_variable changed;
};

TEST(HealthWatch, ReportsAMemberReadyOnceItIsHealthyAndKeepsItsMetrics) {
  Watched watched(Member::Kind::kRank);
  ASSERT_TRUE(watched.comes([&] { return !watched.watch->snapshot()[0].metrics.empty(); }));
  EXPECT_EQ(watched.group().state, GroupState::kStarting);
  watched.status = 200;
  EXPECT_TRUE(watched.comes([&] { return watched.group().state == GroupState::kReady; }));
  EXPECT_TRUE(watched.comes([&] { return watched.watch->snapshot()[0].healthy; }));
  EXPECT_EQ(watched.watch->snapshot()[0].metrics, "vllm:num_requests_running 3\n");
}

TEST(HealthWatch, HasAMemberThatStaysUnhealthyStartedAgain) {
  Watched watched(Member::Kind::kRank);
  watched.status = 200;
  ASSERT_TRUE(watched.comes([&] { return watched.group().state == GroupState::kReady; }));
  watched.status = 503;
  ASSERT_TRUE(watched.comes([&] { return watched.group().num_restarts > 0; }));
  EXPECT_EQ(watched.group().last_failure, "g-0: unhealthy for 0 s");
  watched.status = 200;
  EXPECT_TRUE(watched.comes([&] { return watched.group().state == GroupState::kReady; }));
}

TEST(HealthWatch, HoldsItsOwnAbsenceAgainstNobody) {
  TestClock clock;  // stands still: no answer is ever late
  Watched watched(Member::Kind::kRank, milliseconds(5), milliseconds(500), clock);
  watched.status = 200;
  ASSERT_TRUE(watched.comes([&] { return watched.group().state == GroupState::kReady; }));
  // Between two rounds, as if it had been stopped.
  watched.thread.loop().run_and_wait([&] { clock.advance(std::chrono::hours(1)); });
  int rounds = 0;
  ASSERT_TRUE(watched.comes([&] { return ++rounds > 20; }));
  EXPECT_EQ(watched.group().num_restarts, 0);
}

TEST(HealthWatch, LooksAtOnceWhenItIsTold) {
  Watched watched(Member::Kind::kRank, std::chrono::hours(1), std::chrono::hours(2));
  watched.status = 200;
  const TimePoint deadline = real_clock().now() + std::chrono::seconds(60);
  while (watched.group().state != GroupState::kReady && real_clock().now() < deadline) {
    watched.watch->look();  // again and again: the first question may still be on its way
    poll(nullptr, 0, 5);
  }
  EXPECT_EQ(watched.group().state, GroupState::kReady);
}

TEST(HealthWatch, TakesAGatewayWithoutEndpointsForReady) {
  Watched watched(Member::Kind::kGateway);
  EXPECT_TRUE(watched.comes([&] { return watched.group().state == GroupState::kReady; }));
}

}  // namespace
}  // namespace wideep::launcher
