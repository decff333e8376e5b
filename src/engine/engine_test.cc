#include "engine/engine.h"

#include "engine/engine_impl.h"
#include "engine/test_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace wideep::engine {
namespace {

TEST(Engine, GeneratesUntilMaxTokensAndReportsUsage) {
  TestEngine test;
  const Outcome outcome = test.generate(sampled_request(1, 20, 9));
  EXPECT_EQ(outcome.tokens.size(), 9U);
  EXPECT_EQ(outcome.logprobs.size(), 9U);
  EXPECT_EQ(outcome.alternatives.size(), 18U);
  EXPECT_EQ(outcome.finish, FinishReason::kLength);
  EXPECT_EQ(outcome.last.usage.prompt_tokens, 20);
  EXPECT_EQ(outcome.last.usage.generated_tokens, 9);
  EXPECT_EQ(outcome.last.usage.cached_tokens, 0);
  EXPECT_FALSE(test.engine->has_work());
}

TEST(Engine, StopsAtAnEndOfSequenceUnlessToldToIgnoreIt) {
  FakeModelOptions model{.vocab_size = 8, .eos_tokens = {TokenId{3}}};
  Request request = sampled_request(1, 5, 200);
  request.prompt_tokens = random_tokens(1, 5, 8);
  const Outcome stopped = TestEngine(TestEngine::small_options(), model).generate(request);
  EXPECT_EQ(stopped.finish, FinishReason::kStop);
  EXPECT_EQ(stopped.tokens.back(), TokenId{3});
  EXPECT_FALSE(stopped.last.stop_token);
  EXPECT_LT(stopped.tokens.size(), 200U);
  EXPECT_EQ(std::ranges::count(stopped.tokens, TokenId{3}), 1);

  request.stop.ignore_eos = true;
  const Outcome ignored = TestEngine(TestEngine::small_options(), model).generate(request);
  EXPECT_EQ(ignored.finish, FinishReason::kLength);
  EXPECT_EQ(ignored.tokens.size(), 200U);
}

TEST(Engine, TakesTheEndOfSequenceTokensOfTheOptionsToo) {
  EngineOptions options = TestEngine::small_options();
  options.end_tokens = {TokenId{5}};
  Request request = sampled_request(1, 5, 200);
  request.prompt_tokens = random_tokens(1, 5, 8);
  const Outcome outcome = TestEngine(options, {.vocab_size = 8}).generate(request);
  EXPECT_EQ(outcome.finish, FinishReason::kStop);
  EXPECT_EQ(outcome.tokens.back(), TokenId{5});
}

TEST(Engine, StopsAtAStopTokenAndNamesItButDoesNotShowIt) {
  Request request = sampled_request(1, 5, 400);
  const Outcome whole = TestEngine().generate(request);
  request.stop.stop_tokens = {whole.tokens[20]};
  const Outcome outcome = TestEngine().generate(request);
  EXPECT_EQ(outcome.finish, FinishReason::kStop);
  EXPECT_EQ(outcome.last.stop_token, outcome.tokens.back());
  EXPECT_EQ(outcome.tokens.back(), whole.tokens[20]);
  EXPECT_TRUE(whole.text.starts_with(outcome.text));
}

TEST(Engine, NeverEndsBeforeMinTokensExceptByLength) {
  FakeModelOptions model{.vocab_size = 4, .eos_tokens = {TokenId{3}}};
  Request request = sampled_request(1, 5, 60);
  request.prompt_tokens = random_tokens(1, 5, 4);
  request.stop.min_tokens = 40;
  request.stop.stop_tokens = {TokenId{1}};
  const Outcome outcome = TestEngine(TestEngine::small_options(), model).generate(request);
  ASSERT_GT(outcome.tokens.size(), 40U);
  for (size_t i = 0; i < 40; ++i)
    EXPECT_TRUE(outcome.tokens[i] == TokenId{0} || outcome.tokens[i] == TokenId{2}) << i;
}

// Only letters can come, so that stop strings have something to match.
Request letters_request(int64_t max_tokens) {
  Request request = sampled_request(3, 10, max_tokens);
  for (const char c : {'a', 'b', 'c'})
    request.sampling.allowed_tokens.push_back(TokenId{c});
  return request;
}

TEST(Engine, StopsAtAStopStringAndShowsNoPartOfIt) {
  Request request = letters_request(300);
  request.stop.stop_strings = {"cab", "bbbb"};
  const Outcome outcome = TestEngine().generate(request);
  ASSERT_EQ(outcome.finish, FinishReason::kStop);
  EXPECT_TRUE(outcome.last.stop_reason == "cab" || outcome.last.stop_reason == "bbbb");
  std::string shown = outcome.text;
  EXPECT_EQ((shown + outcome.last.stop_reason).size(), outcome.tokens.size());
  for (const char* stop : {"cab", "bbbb"})
    EXPECT_EQ(shown.find(stop), std::string::npos);

  request.stop.include_stop_string = true;
  EXPECT_EQ(TestEngine().generate(request).text, shown + outcome.last.stop_reason);
}

TEST(Engine, LooksForStopStringsBehindMinTokensOnly) {
  Request request = letters_request(300);
  request.stop.stop_strings = {"ab"};
  const size_t early = TestEngine().generate(request).tokens.size();
  request.stop.min_tokens = static_cast<int64_t>(early) + 5;
  const Outcome outcome = TestEngine().generate(request);
  EXPECT_EQ(outcome.finish, FinishReason::kStop);
  EXPECT_GE(outcome.tokens.size(), early + 6);
}

TEST(Engine, EndsWithLengthWhenTheContextIsFull) {
  EngineOptions options = TestEngine::small_options();
  options.max_model_len = 40;
  TestEngine test(options);
  const Outcome outcome = test.generate(sampled_request(1, 30, 1000));
  EXPECT_EQ(outcome.finish, FinishReason::kLength);
  EXPECT_EQ(outcome.tokens.size(), 10U);
}

TEST(Engine, RefusesWhatItCanNeverRun) {
  EngineOptions options = TestEngine::small_options();
  options.max_model_len = 40;
  TestEngine test(options);
  const auto refused = [&](const std::function<void(Request&)>& spoil) {
    Request request = sampled_request(1, 10, 5);
    spoil(request);
    const auto id = test.engine->submit(std::move(request), [](const RequestEvent&) {
      ADD_FAILURE() << "an event for a refused request";
    });
    return id ? std::string() : id.error().message;
  };
  EXPECT_NE(refused([](Request& r) { r.prompt_tokens.clear(); }), "");
  EXPECT_NE(refused([](Request& r) { r.prompt_tokens.resize(40); }).find("40 tokens"),
            std::string::npos);
  EXPECT_NE(refused([](Request& r) { r.prompt_tokens[3] = TokenId{256}; }), "");
  EXPECT_NE(refused([](Request& r) { r.stop.max_tokens = 0; }), "");
  EXPECT_NE(refused([](Request& r) { r.stop.min_tokens = 6; }), "");
  EXPECT_NE(refused([](Request& r) { r.stop.stop_tokens = {TokenId{-1}}; }), "");
  EXPECT_NE(refused([](Request& r) { r.stop.stop_strings = {""}; }), "");
  EXPECT_NE(refused([](Request& r) { r.sampling.top_p = 2; }), "");
  EXPECT_NE(refused([](Request& r) { r.generated_prefix.assign(6, TokenId{1}); }), "");
  EXPECT_FALSE(test.engine->has_work());
}

TEST(Engine, RefusesMoreThanTheQueueHolds) {
  EngineOptions options = TestEngine::small_options();
  options.max_num_queued_reqs = 3;
  TestEngine test(options);
  for (int i = 0; i < 3; ++i)
    test.submit(sampled_request(i, 4, 4));
  const auto ignore = [](const RequestEvent&) {};
  const auto fourth = test.engine->submit(sampled_request(4, 4, 4), ignore);
  ASSERT_FALSE(fourth);
  EXPECT_EQ(fourth.error().code, ErrorCode::kExhausted);
  ASSERT_TRUE(test.engine->step(test.all_to_all));  // now they run: the queue is empty
  EXPECT_TRUE(test.engine->submit(sampled_request(4, 4, 4), ignore));
}

TEST(Engine, RefusesMoreTokensThanTheQueueHolds) {
  EngineOptions options = TestEngine::small_options();
  options.max_num_queued_tokens = 100;
  TestEngine test(options);
  test.submit(sampled_request(1, 60, 4));
  const auto second = test.engine->submit(sampled_request(2, 60, 4), [](const RequestEvent&) {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kExhausted);
}

TEST(Engine, FreesACancelledRequestWithTheNextStep) {
  TestEngine test;
  Outcome& outcome = test.submit(sampled_request(1, 100, 500));
  const SequenceId id = test.last_id;
  for (int i = 0; i < 5; ++i)
    ASSERT_TRUE(test.engine->step(test.all_to_all));
  EXPECT_LT(test.engine->stats().num_kv_blocks_free, 200);
  test.engine->cancel(id);
  test.engine->cancel(id);
  test.engine->cancel(SequenceId{12345});
  ASSERT_TRUE(test.engine->step(test.all_to_all));
  EXPECT_EQ(outcome.finish, FinishReason::kAbort);
  EXPECT_EQ(test.engine->stats().num_kv_blocks_free, 200);
  test.run();
  EXPECT_FALSE(test.engine->has_work());
}

TEST(Engine, CancelsARequestThatHasNotBegun) {
  TestEngine test;
  Outcome& outcome = test.submit(sampled_request(1, 10, 5));
  test.engine->cancel(test.last_id);
  test.run();
  EXPECT_EQ(outcome.finish, FinishReason::kAbort);
  EXPECT_TRUE(outcome.tokens.empty());
  EXPECT_EQ(test.model.num_rows, 0);
}

TEST(Engine, TakesNothingNewWhileItDrains) {
  TestEngine test;
  Outcome& outcome = test.submit(sampled_request(1, 10, 5));
  test.engine->drain();
  const auto late = test.engine->submit(sampled_request(2, 10, 5), [](const RequestEvent&) {});
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::kUnavailable);
  test.run();
  EXPECT_EQ(outcome.finish, FinishReason::kLength);
}

TEST(Engine, EndsWhatHasWaitedTooLongForAPlace) {
  EngineOptions options = TestEngine::small_options();
  options.max_num_seqs = 1;
  options.queue_timeout = std::chrono::seconds(10);
  TestEngine test(options);
  Outcome& running = test.submit(sampled_request(1, 10, 50));
  Outcome& waiting = test.submit(sampled_request(2, 10, 50));
  ASSERT_TRUE(test.engine->step(test.all_to_all));
  test.clock.advance(std::chrono::seconds(11));
  test.run();
  EXPECT_EQ(running.finish, FinishReason::kLength);
  EXPECT_EQ(waiting.finish, FinishReason::kError);
  EXPECT_TRUE(waiting.last.retryable);
}

TEST(Engine, EndsOnlyTheRequestWhoseLogitsAreNoNumbers) {
  TestEngine test;
  test.model.poison = TokenId{77};
  Request bad = sampled_request(1, 10, 5);
  bad.prompt_tokens.back() = TokenId{77};
  Request good = sampled_request(2, 10, 5);
  for (Request* request : {&bad, &good})
    request->sampling.logit_bias = {{TokenId{77}, -100.0F}};
  std::ranges::replace(good.prompt_tokens, TokenId{77}, TokenId{78});
  Outcome& failed = test.submit(bad);
  Outcome& fine = test.submit(good);
  test.run();
  EXPECT_EQ(failed.finish, FinishReason::kError);
  EXPECT_NE(failed.last.error.find("numerics"), std::string::npos);
  EXPECT_FALSE(failed.last.retryable);
  EXPECT_EQ(fine.finish, FinishReason::kLength);
  EXPECT_EQ(test.engine->stats().num_running, 0);
  EXPECT_EQ(test.engine->stats().num_corrupted, 1);
}

TEST(Engine, ARequestThatLeavesItselfNoTokenIsNotCorrupted) {
  TestEngine test;
  Request request = sampled_request(1, 10, 5);
  request.sampling.allowed_tokens = {TokenId{9}};
  request.stop.stop_tokens = {TokenId{9}};
  request.stop.min_tokens = 1;
  const Outcome& outcome = test.submit(request);
  test.run();
  EXPECT_EQ(outcome.finish, FinishReason::kError);
  EXPECT_EQ(outcome.last.error_code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(test.engine->stats().num_corrupted, 0);
}

TEST(Engine, TellsWhenThingsHappened) {
  TestEngine test;
  Outcome& outcome = test.submit(sampled_request(1, 100, 2));  // two chunks of 64
  const TimePoint start = test.clock.now();
  for (int i = 0; i < 3; ++i) {
    test.clock.advance(std::chrono::seconds(1));
    ASSERT_TRUE(test.engine->step(test.all_to_all));
  }
  const RequestTiming& timing = outcome.last.timing;
  EXPECT_EQ(timing.queued, start);
  EXPECT_EQ(timing.scheduled, start + std::chrono::seconds(1));
  EXPECT_EQ(timing.first_token, start + std::chrono::seconds(2));
  EXPECT_EQ(timing.last_token, start + std::chrono::seconds(3));
}

TEST(Engine, CountsWhatItDoes) {
  TestEngine test;
  test.generate(sampled_request(1, 40, 5));
  test.generate(sampled_request(1, 40, 5));
  const EngineStats stats = test.engine->stats();
  EXPECT_EQ(stats.prompt_tokens, 80);
  EXPECT_EQ(stats.generated_tokens, 10);
  EXPECT_EQ(stats.prefix_cache_queries, 80);
  EXPECT_EQ(stats.prefix_cache_hits, 32);
  EXPECT_EQ(stats.num_kv_blocks, 200);
  EXPECT_EQ(stats.kv_cache_usage, 0);
  EXPECT_EQ(stats.expert_bytes_read, test.model.expert_bytes_read());
  EXPECT_GT(stats.expert_bytes_read, 0);
  EXPECT_EQ(test.outcomes[1]->last.usage.cached_tokens, 32);
}

TEST(Engine, SleepsWhenNobodyHasWorkAndWakesForTheNextRequest) {
  TestEngine test;
  EXPECT_FALSE(test.engine->has_work());
  test.generate(sampled_request(1, 10, 3));
  EXPECT_FALSE(test.engine->has_work());
  EXPECT_GE(test.all_to_all.num_sleeps, 1);
  test.engine->wake();  // as another rank's request would
  EXPECT_TRUE(test.engine->has_work());
  ASSERT_TRUE(test.engine->step(test.all_to_all));
  EXPECT_FALSE(test.engine->has_work());
  EXPECT_EQ(test.generate(sampled_request(2, 10, 3)).tokens.size(), 3U);
}

TEST(Engine, BringsNoMoreThanTheFirstProgramHasRoomFor) {
  TestEngine test;
  test.all_to_all.first_tokens_max = 5;
  test.submit(sampled_request(1, 60, 3));
  ASSERT_TRUE(test.engine->step(test.all_to_all));
  EXPECT_EQ(test.model.num_rows, 5);
}

// A program has room for what was announced only: a prompt that comes while others decode must be
// announced at once, not trickle in one row at a time.
TEST(Engine, AnnouncesAPromptThatArrivesBesideDecodes) {
  TestEngine test;
  test.submit(sampled_request(1, 10, 100));
  for (int i = 0; i < 5; ++i)
    ASSERT_TRUE(test.engine->step(test.all_to_all));
  Outcome& late = test.submit(sampled_request(2, 50, 5));
  int num_steps = 0;
  for (; late.tokens.empty(); ++num_steps)
    ASSERT_TRUE(test.engine->step(test.all_to_all));
  EXPECT_LE(num_steps, 2);
}

TEST(Engine, EndsEverythingWhenTheGroupIsLost) {
  TestEngine test;
  Outcome& running = test.submit(sampled_request(1, 10, 50));
  ASSERT_TRUE(test.engine->step(test.all_to_all));
  Outcome& queued = test.submit(sampled_request(2, 10, 50));
  test.engine->fail_all({ErrorCode::kPeerLost, "rank 3 is gone"});
  for (const Outcome* outcome : {&running, &queued}) {
    EXPECT_EQ(outcome->finish, FinishReason::kError);
    EXPECT_TRUE(outcome->last.retryable);
    EXPECT_EQ(outcome->last.error, "rank 3 is gone");
  }
  EXPECT_FALSE(test.engine->has_work());
  EXPECT_EQ(test.engine->stats().num_kv_blocks_free, 200);
}

TEST(EngineOptions, AreCheckedAtTheStart) {
  FakeModel model;
  TestClock clock;
  const auto refused = [&](const std::function<void(EngineOptions&)>& spoil) {
    EngineOptions options = TestEngine::small_options();
    spoil(options);
    return !Engine::create(model, nullptr, clock, options);
  };
  EXPECT_TRUE(refused([](EngineOptions& o) { o.block_size = 24; }));
  EXPECT_TRUE(refused([](EngineOptions& o) { o.block_size = 0; }));
  EXPECT_TRUE(refused([](EngineOptions& o) { o.block_size = 528; }));
  EXPECT_TRUE(refused([](EngineOptions& o) { o.max_num_seqs = 0; }));
  EXPECT_TRUE(refused([](EngineOptions& o) { o.max_num_batched_tokens = 7; }));
  EXPECT_TRUE(refused([](EngineOptions& o) { o.max_model_len = 2000; }));
  EXPECT_TRUE(refused([](EngineOptions& o) { o.num_kv_blocks = 3, o.max_model_len = 500; }));
  EXPECT_TRUE(refused([](EngineOptions& o) { o.max_num_queued_reqs = 0; }));
  EXPECT_FALSE(refused([](EngineOptions&) {}));
}

TEST(EngineOptions, AreResolved) {
  FakeModel model;
  TestClock clock;
  EngineOptions options = TestEngine::small_options();
  options.num_kv_blocks = 4;
  const auto small = *Engine::create(model, nullptr, clock, options);
  EXPECT_EQ(small->options().max_model_len, 64);  // what the cache holds
  options.num_kv_blocks = 0;
  options.kv_cache_bytes = 32 * 16 * 100;  // bytes of a token, tokens of a block, blocks
  const auto sized = *Engine::create(model, nullptr, clock, options);
  EXPECT_EQ(sized->options().num_kv_blocks, 100);
  options.kv_cache_bytes = 0;
  const auto chosen = *Engine::create(model, nullptr, clock, options);
  EXPECT_EQ(chosen->options().num_kv_blocks, 8 * 1024 / 16);
}

}  // namespace
}  // namespace wideep::engine
