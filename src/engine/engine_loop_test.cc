#include "engine/engine_loop.h"

#include "engine/test_engine.h"

#include <gtest/gtest.h>

#include <future>
#include <latch>

namespace wideep::engine {
namespace {

constexpr auto kLong = std::chrono::minutes(1);

// Submits from any thread; the future is ready with the last event.
std::future<Outcome> submit(Engine& engine, Request request) {
  struct Pending {
    Outcome outcome;
    std::promise<Outcome> promise;
  };

  auto pending = std::make_shared<Pending>();  // shared: by the sink alone, which is copyable
  auto future = pending->promise.get_future();
  const auto id = engine.submit(std::move(request), [pending](const RequestEvent& event) {
    pending->outcome.add(event);
    if (event.finish) pending->promise.set_value(pending->outcome);
  });
  EXPECT_TRUE(id) << id.error().message;
  return future;
}

Outcome outcome_of(std::future<Outcome>& future) {
  EXPECT_EQ(future.wait_for(kLong), std::future_status::ready);
  return future.get();
}

TEST(EngineLoop, ServesRequestsFromManyThreads) {
  TestEngine test;
  EngineLoop loop(*test.engine, test.all_to_all, real_clock(), {});
  std::vector<std::future<Outcome>> futures(24);
  {
    std::vector<std::jthread> clients;
    for (uint64_t client = 0; client < 4; ++client)
      clients.emplace_back([&, client] {
        for (uint64_t i = client; i < futures.size(); i += 4)
          futures[i] = submit(*test.engine, sampled_request(i, 10 + static_cast<int64_t>(i), 20));
      });
  }
  for (uint64_t i = 0; i < futures.size(); ++i)
    EXPECT_EQ(outcome_of(futures[i]),
              TestEngine().generate(sampled_request(i, 10 + static_cast<int64_t>(i), 20)));
}

TEST(EngineLoop, DrainsToTheLastRequest) {
  TestEngine test;
  EngineLoop loop(*test.engine, test.all_to_all, real_clock(), {});
  auto future = submit(*test.engine, sampled_request(1, 20, 100));
  ASSERT_TRUE(loop.drain(kLong));
  EXPECT_EQ(outcome_of(future).finish, FinishReason::kLength);
  EXPECT_FALSE(test.engine->submit(sampled_request(2, 20, 5), [](const RequestEvent&) {}));
}

TEST(EngineLoop, IsIdleOnceNobodyHasWork) {
  TestEngine test;
  EngineLoop loop(*test.engine, test.all_to_all, real_clock(), {});
  auto future = submit(*test.engine, sampled_request(1, 20, 900));
  EXPECT_FALSE(loop.await_idle(Duration::zero()));
  test.engine->cancel(SequenceId{0});
  EXPECT_TRUE(loop.await_idle(kLong));
  EXPECT_FALSE(test.engine->has_work());
}

TEST(EngineLoop, EndsUnfinishedRequestsWhenItStops) {
  TestEngine test;
  EngineLoop loop(*test.engine, test.all_to_all, real_clock(), {});
  auto future = submit(*test.engine, sampled_request(1, 20, 900));
  EXPECT_FALSE(loop.drain(Duration::zero()));
  loop.stop();
  const Outcome outcome = outcome_of(future);
  EXPECT_EQ(outcome.finish, FinishReason::kError);
  EXPECT_TRUE(outcome.last.retryable);
  EXPECT_EQ(test.engine->num_unfinished(), 0);
}

TEST(EngineLoop, EndsEverythingWithARetryableErrorWhenTheExchangeFails) {
  TestEngine test;
  FakeAllToAll failing(30);
  std::promise<Error> failed;
  EngineLoop loop(*test.engine, failing, real_clock(),
                  {.on_failure = [&](const Error& reason) { failed.set_value(reason); }});
  auto future = submit(*test.engine, sampled_request(1, 20, 900));
  const Outcome outcome = outcome_of(future);
  EXPECT_EQ(outcome.finish, FinishReason::kError);
  EXPECT_TRUE(outcome.last.retryable);
  EXPECT_EQ(outcome.last.error, "rank 1 is gone");
  EXPECT_EQ(failed.get_future().get().code, ErrorCode::kPeerLost);
  EXPECT_EQ(loop.failure()->code, ErrorCode::kPeerLost);
  const auto late = test.engine->submit(sampled_request(2, 20, 5), [](const RequestEvent&) {});
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::kUnavailable);
}

TEST(EngineLoop, ReportsEveryStep) {
  TestEngine test;
  std::atomic<int64_t> num_tokens = 0;
  EngineLoop loop(*test.engine, test.all_to_all, real_clock(),
                  {.on_step = [&](const EngineStats& s) { num_tokens += s.last_step_tokens; }});
  auto future = submit(*test.engine, sampled_request(1, 20, 5));
  outcome_of(future);
  loop.stop();
  EXPECT_EQ(num_tokens, 24);  // the prompt and all generated tokens but the last
}

// An engine without work, or with a step that takes as long as the test wants.
class StubEngine : public Engine {
 public:
  Result<SequenceId> submit(Request, EventSink) override { return SequenceId{}; }

  void cancel(SequenceId) override {}

  void drain() override {}

  Status step(ep::AllToAll&) override {
    step_begun.count_down();
    step_may_end.wait();
    has_work_ = false;
    return {};
  }

  bool has_work() const override { return has_work_; }

  void wait_for_work(Duration timeout) override {
    ++num_waits;
    longest_wait = timeout;
    std::unique_lock lock(mutex_);
    waiting = true;
    changed_.notify_all();
    changed_.wait_for(lock, kLong, [&] { return woken_; });
  }

  void wake() override {
    const std::scoped_lock lock(mutex_);
    woken_ = true;
    changed_.notify_all();
  }

  void set_waker(std::function<void()>) override {}

  void fail_all(const Error&) override {}

  int64_t num_unfinished() const override { return 0; }

  EngineStats stats() const override { return {}; }

  const EngineOptions& options() const override { return options_; }

  void wait_until_it_sleeps() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kLong, [&] { return waiting; });
  }

  std::atomic<bool> has_work_{false};
  std::latch step_begun{1};
  std::latch step_may_end{1};
  std::atomic<int> num_waits{0};
  std::atomic<Duration> longest_wait{};
  bool waiting = false;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
  EngineOptions options_;
};

TEST(EngineLoop, SleepsWithoutPollingWhenThereIsNoWork) {
  StubEngine engine;
  FakeAllToAll all_to_all;
  EngineLoop loop(engine, all_to_all, real_clock(), {});
  engine.wait_until_it_sleeps();
  EXPECT_EQ(engine.num_waits, 1);
  EXPECT_GE(engine.longest_wait.load(), std::chrono::milliseconds(200));  // <= 5 a second
  EXPECT_EQ(loop.step_age(), Duration::zero());
  loop.stop();
}

TEST(EngineLoop, TellsHowLongAStepHasBeenRunning) {
  StubEngine engine;
  engine.has_work_ = true;
  FakeAllToAll all_to_all;
  TestClock clock;
  EngineLoop loop(engine, all_to_all, clock, {});
  engine.step_begun.wait();
  clock.advance(std::chrono::seconds(5));
  EXPECT_EQ(loop.step_age(), std::chrono::seconds(5));
  engine.step_may_end.count_down();
  engine.wait_until_it_sleeps();
  EXPECT_EQ(loop.step_age(), Duration::zero());
  loop.stop();
}

}  // namespace
}  // namespace wideep::engine
