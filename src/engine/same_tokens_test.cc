// Promise 1 for the engine alone: whatever happens to a request on its way, its tokens,
// log-probabilities and text are those that it gives alone. The fake model's logits depend on every
// KV value of the sequence, so that a wrong, stale or foreign block shows at once.
#include "engine/test_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <optional>

namespace wideep::engine {
namespace {

constexpr int64_t kPrompt = 75;
constexpr int64_t kTokens = 60;

Request subject() {
  return sampled_request(1, kPrompt, kTokens);
}

// Once with a model for which all tokens are alike, once with one that tells prompts from answers.
class SameTokens : public testing::TestWithParam<bool> {
 protected:
  static FakeModelOptions fake(FakeModelOptions options = {}) {
    options.by_role = GetParam();
    return options;
  }

  static Outcome generate_alone(const Request& request) {
    return TestEngine(TestEngine::small_options(), fake()).generate(request);
  }

  static const Outcome& alone() {
    static std::array<std::optional<Outcome>, 2> outcomes;
    std::optional<Outcome>& outcome = outcomes[GetParam() ? 1 : 0];
    if (!outcome) outcome = generate_alone(subject());
    return *outcome;
  }
};

INSTANTIATE_TEST_SUITE_P(Roles, SameTokens, testing::Bool(), [](const auto& info) {
  return info.param ? "Apart" : "Alike";
});

EngineOptions options_with(const std::function<void(EngineOptions&)>& change) {
  EngineOptions options = TestEngine::small_options();
  change(options);
  return options;
}

TEST_P(SameTokens, InABatchOf32) {
  TestEngine test(
      options_with([](EngineOptions& o) { o.max_num_seqs = 32, o.num_kv_blocks = 500; }), fake());
  for (uint64_t i = 0; i < 31; ++i)
    test.submit(sampled_request(100 + i, 5 + 3 * static_cast<int64_t>(i), kTokens));
  Outcome& outcome = test.submit(subject());
  test.run();
  EXPECT_EQ(outcome, alone());
  EXPECT_GE(test.model.num_rows_max, 32);
}

TEST_P(SameTokens, InChunksOfSeven) {
  TestEngine test(
      options_with([](EngineOptions& o) { o.max_num_seqs = 4, o.max_num_batched_tokens = 7; }),
      fake());
  EXPECT_EQ(test.generate(subject()), alone());
  EXPECT_EQ(test.model.num_rows_max, 7);
}

TEST_P(SameTokens, WithEveryBlockSize) {
  for (const int64_t block_size : {16, 32, 48, 64, 128, 512}) {
    TestEngine test(options_with([&](EngineOptions& o) { o.block_size = block_size; }), fake());
    EXPECT_EQ(test.generate(subject()), alone()) << block_size;
  }
}

TEST_P(SameTokens, FromAWarmPrefixCache) {
  TestEngine test(TestEngine::small_options(), fake());
  EXPECT_EQ(test.generate(subject()), alone());
  EXPECT_EQ(test.generate(subject()), alone());
  EXPECT_EQ(test.outcomes[1]->last.usage.cached_tokens, 64);
}

TEST_P(SameTokens, WithoutAPrefixCache) {
  TestEngine test(options_with([](EngineOptions& o) { o.enable_prefix_caching = false; }), fake());
  EXPECT_EQ(test.generate(subject()), alone());
  EXPECT_EQ(test.generate(subject()), alone());
  EXPECT_EQ(test.outcomes[1]->last.usage.cached_tokens, 0);
}

// Each turn's prompt is all that was said before and something new.
TEST_P(SameTokens, OverSeveralTurnsOfAChat) {
  TestEngine warm(TestEngine::small_options(), fake());
  std::vector<TokenId> conversation;
  for (uint64_t turn = 0; turn < 4; ++turn) {
    Request request = sampled_request(turn, 30, 40);
    conversation.insert(conversation.end(), request.prompt_tokens.begin(),
                        request.prompt_tokens.end());
    request.prompt_tokens = conversation;
    const Outcome outcome = warm.generate(request);
    EXPECT_EQ(outcome, generate_alone(request)) << turn;
    // The answers' blocks are used again too, only the end is computed; where roles make a
    // difference the last answer is computed again, as a prompt.
    const auto turns = static_cast<int64_t>(turn);
    const int64_t reusable = GetParam() ? 70 * turns - 40 : 70 * turns;
    if (turn > 0) {
      EXPECT_GE(outcome.last.usage.cached_tokens, reusable - 16);
      EXPECT_LE(outcome.last.usage.cached_tokens, reusable);
    }
    conversation.insert(conversation.end(), outcome.tokens.begin(), outcome.tokens.end());
  }
}

TEST_P(SameTokens, ForTwinsThatShareWhatOneOfThemComputes) {
  TestEngine test(options_with([](EngineOptions& o) { o.max_num_batched_tokens = 20; }), fake());
  for (int i = 0; i < 6; ++i)
    test.submit(subject());
  test.run();
  for (const auto& outcome : test.outcomes)
    EXPECT_EQ(*outcome, alone());
  // One prompt in full, and the ends of the others.
  EXPECT_EQ(test.engine->stats().prefix_cache_hits, 5 * 64);
}

TEST_P(SameTokens, AfterPreemptions) {
  TestEngine test(options_with([](EngineOptions& o) {
                    o.num_kv_blocks = 14;
                    o.max_model_len = 200;
                  }),
                  fake());
  for (uint64_t i = 0; i < 7; ++i)
    test.submit(sampled_request(200 + i, 40, kTokens));
  Outcome& last = test.submit(subject());  // the latest is preempted first
  test.run();
  EXPECT_GT(test.engine->stats().num_preemptions, 3);
  EXPECT_EQ(last, alone());
  for (uint64_t i = 0; i < 7; ++i)
    EXPECT_EQ(*test.outcomes[i], generate_alone(sampled_request(200 + i, 40, kTokens))) << i;
  EXPECT_EQ(test.engine->stats().num_kv_blocks_free, 14);
}

TEST_P(SameTokens, WhenRequestsWithOtherSaltsHoldTheSameTokens) {
  TestEngine test(TestEngine::small_options(), fake());
  Request other = subject();
  other.cache_salt = "another tenant";
  EXPECT_EQ(test.generate(other), alone());
  EXPECT_EQ(test.generate(subject()), alone());
  EXPECT_EQ(test.outcomes[1]->last.usage.cached_tokens, 0);
}

TEST_P(SameTokens, ResumedAtEveryToken) {
  Request letters = subject();
  for (int c = 'a'; c <= 'e'; ++c)
    letters.sampling.allowed_tokens.push_back(TokenId{c});
  letters.stop.stop_strings = {"abcde", "eeee"};
  letters.stop.min_tokens = 8;
  for (const Request& request : {subject(), letters}) {
    const Outcome whole = generate_alone(request);
    TestEngine warm(TestEngine::small_options(), fake());
    for (size_t cut = 0; cut < whole.tokens.size(); ++cut) {
      SCOPED_TRACE(cut);
      Request resumed = request;
      resumed.generated_prefix.assign(whole.tokens.begin(), whole.tokens.begin() + cut);
      Outcome rest = (cut % 2 == 0 ? generate_alone(resumed) : warm.generate(resumed));
      Outcome joined;  // what the client has of both
      for (size_t i = 0; i < cut; ++i) {
        joined.tokens.push_back(whole.tokens[i]);
        joined.logprobs.push_back(whole.logprobs[i]);
        joined.alternatives.insert(joined.alternatives.end(), whole.alternatives.begin() + 2 * i,
                                   whole.alternatives.begin() + 2 * i + 2);
        joined.text += whole.texts[i];
      }
      joined.tokens.insert(joined.tokens.end(), rest.tokens.begin(), rest.tokens.end());
      joined.logprobs.insert(joined.logprobs.end(), rest.logprobs.begin(), rest.logprobs.end());
      joined.alternatives.insert(joined.alternatives.end(), rest.alternatives.begin(),
                                 rest.alternatives.end());
      joined.text += rest.text;
      joined.finish = rest.finish;
      ASSERT_EQ(joined, whole);
      ASSERT_EQ(rest.last.usage.generated_tokens, whole.last.usage.generated_tokens);
    }
  }
}

// Logits so far apart that the most likely token nearly always comes: drafts can be right.
Request decided_request(uint64_t seed, int64_t prompt, int64_t max_tokens) {
  Request request = sampled_request(seed, prompt, max_tokens);
  request.sampling.frequency_penalty = 0;
  request.sampling.repetition_penalty = 1;
  return request;
}

TEST_P(SameTokens, WithSpeculation) {
  const FakeModelOptions plain = fake({.spread = 60});
  const FakeModelOptions drafting = fake({.spread = 60, .has_draft = true});
  TestEngine test(options_with([](EngineOptions& o) {
                    o.num_speculative_tokens = 1;
                    o.num_kv_blocks = 14;
                    o.max_model_len = 200;
                  }),
                  drafting);
  std::vector<Request> requests;
  for (uint64_t i = 0; i < 12; ++i) {
    requests.push_back(decided_request(i, 5 + 6 * static_cast<int64_t>(i), kTokens));
    if (i % 3 == 0) requests.back().stop.max_tokens = 7;
  }
  for (const Request& request : requests)
    test.submit(request);
  test.run();
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(*test.outcomes[i],
              TestEngine(TestEngine::small_options(), plain).generate(requests[i]))
        << i;
  }
  const EngineStats stats = test.engine->stats();
  EXPECT_GT(stats.num_preemptions, 0);
  EXPECT_GT(stats.num_accepted_tokens, stats.num_draft_tokens / 6);
  EXPECT_LT(stats.num_accepted_tokens, stats.num_draft_tokens);
  EXPECT_EQ(stats.num_kv_blocks_free, 14);
}

TEST_P(SameTokens, WithSpeculationAfterAStepThatFailedAtAnyLayer) {
  const FakeModelOptions drafting = fake({.spread = 60, .has_draft = true});
  const EngineOptions options =
      options_with([](EngineOptions& o) { o.num_speculative_tokens = 1; });
  const Request request = decided_request(5, 40, 12);
  const Outcome alone =
      TestEngine(TestEngine::small_options(), fake({.spread = 60})).generate(request);
  for (int64_t fail_at = 0; fail_at < 40; ++fail_at) {
    TestEngine test(options, drafting);
    Outcome& outcome = test.submit(request);
    FakeAllToAll failing(fail_at);
    while (test.engine->has_work() && test.engine->step(failing)) {
    }
    test.run();
    ASSERT_EQ(outcome, alone) << fail_at;
  }
}

// Runs a load to its end, with an exchange that fails at its `fail_at`-th use, and goes on with a
// fresh one. Returns how many uses there were.
TEST_P(SameTokens, AfterAStepThatFailedAtAnyLayer) {
  Request second = sampled_request(2, 33, 12);
  Request first = sampled_request(1, 40, 12);
  const EngineOptions options =
      options_with([](EngineOptions& o) { o.max_num_batched_tokens = 20; });
  const Outcome first_alone = TestEngine(options, fake()).generate(first);
  const Outcome second_alone = TestEngine(options, fake()).generate(second);
  bool has_failed = true;
  int64_t fail_at = 0;
  for (; has_failed; ++fail_at) {
    SCOPED_TRACE(fail_at);
    TestEngine test(options, fake());
    Outcome& a = test.submit(first);
    Outcome& b = test.submit(second);
    FakeAllToAll failing(fail_at);
    has_failed = false;
    while (!has_failed && test.engine->has_work()) {
      const Status status = test.engine->step(failing);
      has_failed = !status;
      if (has_failed) {
        ASSERT_EQ(status.error().code, ErrorCode::kPeerLost);
      }
    }
    test.run();  // with another exchange: a new epoch
    ASSERT_EQ(a, first_alone);
    ASSERT_EQ(b, second_alone);
    ASSERT_EQ(test.engine->stats().num_kv_blocks_free, options.num_kv_blocks);
  }
  EXPECT_GT(fail_at, 16 * (1 + FakeModel::kLayers));  // it failed at every exchange of the run
}

// Everything at once, at random: requests of several priorities arrive and leave in the middle of
// steps, cut off, on a cache that is too small, with exchanges that fail now and then.
TEST_P(SameTokens, InAnyWeather) {
  for (uint64_t seed = 0; seed < 25; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const auto pick = [&](uint64_t bound) { return static_cast<int64_t>(random.below(bound)); };
    EngineOptions options = TestEngine::small_options();
    options.block_size = 16 * (1 + pick(3));
    options.max_num_seqs = 1 + pick(8);
    options.max_num_batched_tokens = options.max_num_seqs + pick(40);
    options.max_model_len = 192;
    options.num_kv_blocks = 192 / options.block_size + 1 + pick(10);
    options.enable_prefix_caching = pick(4) != 0;
    TestEngine test(options, fake());
    auto exchange = std::make_unique<FakeAllToAll>(pick(200));
    std::vector<Request> requests;
    std::vector<bool> is_cancelled;
    while (requests.size() < 20 || test.engine->has_work()) {
      if (requests.size() < 20 && pick(3) == 0) {
        Request request = sampled_request(random.bits(), 1 + pick(60), 1 + pick(50));
        if (pick(2) == 0) {  // a start that others have too
          const auto common = random_tokens(7, 40);
          request.prompt_tokens.insert(request.prompt_tokens.begin(), common.begin(), common.end());
        }
        request.priority = static_cast<int32_t>(pick(3));
        requests.push_back(request);
        test.submit(request);
        is_cancelled.push_back(pick(8) == 0);
        if (is_cancelled.back()) test.engine->cancel(test.last_id);
      }
      if (!test.engine->step(*exchange)) exchange = std::make_unique<FakeAllToAll>(pick(200));
    }
    EXPECT_EQ(test.engine->stats().num_kv_blocks_free, options.num_kv_blocks);
    for (size_t i = 0; i < requests.size(); ++i) {
      if (is_cancelled[i]) {
        EXPECT_EQ(test.outcomes[i]->finish, FinishReason::kAbort);
        continue;
      }
      ASSERT_EQ(*test.outcomes[i], generate_alone(requests[i])) << "request " << i;
    }
  }
}

}  // namespace
}  // namespace wideep::engine
