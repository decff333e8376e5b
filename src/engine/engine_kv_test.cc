// Prefill here, decode there: two engines in one process with real KV transfer between them. What a
// request gives is what it gives on one rank alone, and afterwards every block is free on both.
#include "engine/sequence.h"
#include "engine/test_engine.h"
#include "kv/kv_transfer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace wideep::engine {
namespace {

using kv::Transport;
using ::testing::HasSubstr;

constexpr int64_t kPrompt = 75;  // four blocks of 16 and 11 tokens
constexpr int64_t kTokens = 40;
constexpr std::chrono::seconds kPatience{60};

Request subject(int64_t prompt = kPrompt) {
  return sampled_request(1, prompt, kTokens);
}

struct RankSetup {
  Transport transport = Transport::kSharedMemory;
  bool recompute = false;
  int64_t num_blocks = 200;
  int64_t speculative = 0;
  int64_t max_num_seqs = 8;
};

// A model that tells prompts from answers: a token in the wrong role gives other tokens.
FakeModelOptions fake(int64_t speculative) {
  return {.has_draft = speculative > 0, .by_role = true};
}

class Rank {
 public:
  enum class Role : uint8_t { kPrefill, kDecode };

  Rank(Role role, const RankSetup& setup)
      : test(engine_options(role, setup), fake(setup.speculative)),
        kv_(*kv::KvTransfer::create(*test.engine->kv_port(), transfer_options(role, setup))) {}

  // Steps until `is_done`, sleeping in the engine between.
  void run_until(const std::function<bool()>& is_done) {
    const TimePoint give_up = real_clock().now() + kPatience;
    while (!is_done()) {
      ASSERT_LT(real_clock().now(), give_up) << "no end";
      if (test.engine->has_work()) {
        ASSERT_TRUE(test.engine->step(test.all_to_all));
      } else {
        test.engine->wait_for_work(std::chrono::milliseconds(100));
      }
    }
  }

  const Outcome& run(Request request) {
    const Outcome& outcome = test.submit(std::move(request));
    run_until([&] { return outcome.finish.has_value(); });
    return outcome;
  }

  // The prefill leg: the parameters of its answer.
  Json prefill(Request request) {
    request.keep_kv = true;
    request.stop.max_tokens = 1;
    const Outcome& outcome = run(std::move(request));
    EXPECT_TRUE(outcome.last.kv_ticket);
    return outcome.last.kv_ticket ? kv_->params(*outcome.last.kv_ticket) : Json();
  }

  // The request of the decode leg.
  Request with(const Json& params, Request request) {
    auto wish = kv_->read(params);
    EXPECT_TRUE(wish) << wish.error().message;
    request.ticket = wish->ticket;
    return request;
  }

  void expect_all_blocks_free() {
    const auto free = [this] {
      const EngineStats stats = test.engine->stats();
      return stats.num_kv_blocks_free == stats.num_kv_blocks;
    };
    run_until(free);
    EXPECT_EQ(test.engine->kv_port()->leases().stats().num_live, 0);
    EXPECT_EQ(test.engine->num_unfinished(), 0);
  }

  TestEngine test;

 private:
  static EngineOptions engine_options(Role role, const RankSetup& setup) {
    EngineOptions options = TestEngine::small_options();
    options.produces_kv = role == Role::kPrefill;
    options.consumes_kv = role == Role::kDecode;
    options.recompute_failed_pulls = setup.recompute;
    options.num_speculative_tokens = setup.speculative;
    options.max_num_seqs = setup.max_num_seqs;
    if (role == Role::kDecode) options.num_kv_blocks = setup.num_blocks;
    return options;
  }

  static kv::KvTransferOptions transfer_options(Role role, const RankSetup& setup) {
    kv::KvTransferOptions options{.produces = role == Role::kPrefill,
                                  .consumes = role == Role::kDecode,
                                  .recompute_on_failure = setup.recompute,
                                  .listen = {.host = "127.0.0.1", .port = 0, .path = {}}};
    options.puller.link.use_shared_memory = setup.transport == Transport::kSharedMemory;
    options.puller.link.use_tcp = setup.transport == Transport::kTcp;
    return options;
  }

  std::unique_ptr<kv::KvTransfer> kv_;
};

struct Pair {
  explicit Pair(const RankSetup& setup = {})
      : prefill(Rank::Role::kPrefill, setup), decode(Rank::Role::kDecode, setup) {}

  const Outcome& generate(const Request& request) {
    return decode.run(decode.with(prefill.prefill(request), request));
  }

  void expect_all_blocks_free() {
    decode.expect_all_blocks_free();
    prefill.expect_all_blocks_free();
  }

  Rank prefill;
  Rank decode;
};

Outcome alone(Request request, int64_t speculative = 0) {
  EngineOptions options = TestEngine::small_options();
  options.num_speculative_tokens = speculative;
  return TestEngine(options, fake(speculative)).generate(std::move(request));
}

class KvOverEachTransport : public ::testing::TestWithParam<Transport> {
 protected:
  RankSetup setup() const { return {.transport = GetParam()}; }
};

TEST_P(KvOverEachTransport, GivesTheTokensOfOneRankAloneForEveryLengthOfTheLastBlock) {
  for (const int64_t prompt : {1, 2, 15, 16, 17, 32, 33, 75, 160}) {
    Pair pair(setup());
    const Outcome& outcome = pair.generate(subject(prompt));
    EXPECT_EQ(outcome, alone(subject(prompt))) << prompt;
    EXPECT_EQ(pair.decode.test.model.num_rows, kTokens) << "nothing of the prompt but its end";
    EXPECT_EQ(outcome.last.usage.cached_tokens, prompt - 1);
    const EngineStats stats = pair.decode.test.engine->stats();
    EXPECT_EQ(stats.external_cache_hits, prompt - 1);
    pair.expect_all_blocks_free();
  }
}

TEST_P(KvOverEachTransport, PullsOnlyWhatTheDecodeRankLacks) {
  Pair pair(setup());
  Request shorter = subject();
  shorter.prompt_tokens.resize(40);  // two full blocks of the same start
  shorter.stop.max_tokens = 2;
  pair.decode.run(shorter);
  EXPECT_EQ(pair.generate(subject()), alone(subject()));
  const EngineStats stats = pair.decode.test.engine->stats();
  EXPECT_EQ(stats.prefix_cache_hits, 32);
  EXPECT_EQ(stats.external_cache_hits, kPrompt - 1 - 32);
  pair.expect_all_blocks_free();
}

TEST_P(KvOverEachTransport, PullsNothingThatIsThereAlready) {
  Pair pair(setup());
  const Request request = subject(65);  // its last token alone is in the last block
  pair.decode.run(request);
  EXPECT_EQ(pair.generate(request), alone(request));
  EXPECT_EQ(pair.decode.test.engine->stats().external_cache_hits, 0);
  pair.expect_all_blocks_free();
}

TEST_P(KvOverEachTransport, KeepsSpeculatingWithTheDraftLayersCache) {
  RankSetup with_draft = setup();
  with_draft.speculative = 1;
  Pair pair(with_draft);
  EXPECT_EQ(pair.generate(subject()), alone(subject(), 1));
  EXPECT_EQ(pair.decode.test.engine->stats().num_draft_tokens > 0, true);
  pair.expect_all_blocks_free();
}

TEST_P(KvOverEachTransport, ManyRequestsAtOnceWithPreemptionsGiveWhatTheyGiveAlone) {
  RankSetup small = setup();
  small.num_blocks = 64;
  Pair pair(small);
  std::vector<const Outcome*> outcomes;
  std::vector<Request> requests;
  for (uint64_t seed = 1; seed <= 12; ++seed)
    requests.push_back(sampled_request(seed, 40 + 7 * static_cast<int64_t>(seed), 120));
  for (const Request& request : requests)
    outcomes.push_back(
        &pair.decode.test.submit(pair.decode.with(pair.prefill.prefill(request), request)));
  pair.decode.run_until([&] { return pair.decode.test.engine->num_unfinished() == 0; });
  for (size_t i = 0; i < requests.size(); ++i)
    EXPECT_EQ(*outcomes[i], alone(requests[i])) << i;
  EXPECT_GT(pair.decode.test.engine->stats().num_preemptions, 0);
  pair.expect_all_blocks_free();
}

TEST_P(KvOverEachTransport, ATicketCutShortRecomputesFromWhatCame) {
  RankSetup lenient = setup();
  lenient.recompute = true;
  Pair pair(lenient);
  const Request request = pair.decode.with(pair.prefill.prefill(subject()), subject());
  pair.prefill.test.engine->kv_port()->leases().release(
      kv::LeaseId{request.ticket->ticket.lease_id});
  EXPECT_EQ(pair.decode.run(request), alone(subject()));
  pair.expect_all_blocks_free();
}

INSTANTIATE_TEST_SUITE_P(Engine,
                         KvOverEachTransport,
                         ::testing::Values(Transport::kSharedMemory, Transport::kTcp),
                         [](const auto& info) { return std::string(name(info.param)); });

TEST(EngineKv, TheOtherChoicesOfAPromptShareWhatTheFirstPulls) {
  Pair pair;
  Request second = subject();
  second.sampling.seed = 2;
  const Outcome& first =
      pair.decode.test.submit(pair.decode.with(pair.prefill.prefill(subject()), subject()));
  EXPECT_EQ(pair.decode.run(second), alone(second));
  pair.decode.run_until([&] { return first.finish.has_value(); });
  EXPECT_EQ(first, alone(subject()));
  EXPECT_LT(pair.decode.test.model.num_rows, 2 * kTokens + 16) << "the full blocks came once";
  pair.expect_all_blocks_free();
}

TEST(EngineKv, AResumedRequestPullsItsPromptAndComputesItsPrefix) {
  Pair pair;
  const Outcome whole = alone(subject());
  Request resumed = pair.decode.with(pair.prefill.prefill(subject()), subject());
  resumed.generated_prefix.assign(whole.tokens.begin(), whole.tokens.begin() + 20);
  const Outcome& rest = pair.decode.run(resumed);
  EXPECT_EQ(rest.tokens, std::vector<TokenId>(whole.tokens.begin() + 20, whole.tokens.end()));
  EXPECT_EQ(pair.decode.test.model.num_rows, kTokens - 1) << "the prefix, then one a token";
  pair.expect_all_blocks_free();
}

TEST(EngineKv, APullThatFailsEndsTheRequestWithARetryableError) {
  Pair pair;
  const Request request = pair.decode.with(pair.prefill.prefill(subject()), subject());
  pair.prefill.test.engine->kv_port()->leases().release(
      kv::LeaseId{request.ticket->ticket.lease_id});
  const Outcome& outcome = pair.decode.run(request);
  EXPECT_EQ(outcome.finish, FinishReason::kError);
  EXPECT_TRUE(outcome.last.retryable);
  EXPECT_TRUE(outcome.tokens.empty());
  pair.expect_all_blocks_free();
}

TEST(EngineKv, ATicketOfAnotherRequestNeverDecodes) {
  Pair pair;
  Request other = subject();
  other.prompt_tokens.back() = TokenId{(index(other.prompt_tokens.back()) + 1) % 256};
  Request salted = subject();
  salted.cache_salt = "somebody else";
  const Json params = pair.prefill.prefill(subject());
  for (const Request& request : {other, salted, subject(kPrompt - 1), subject(kPrompt + 1)}) {
    const auto refused =
        pair.decode.test.engine->submit(pair.decode.with(params, request), [](auto&) {});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(refused.error().message, HasSubstr("not for this prompt"));
  }
  EXPECT_EQ(pair.decode.run(pair.decode.with(params, subject())), alone(subject()))
      << "the lease was left to its own request";
  pair.expect_all_blocks_free();
}

TEST(EngineKv, ATicketOfAnotherRequestIsComputedHereIfThePolicySaysSo) {
  Pair pair({.recompute = true});
  const Request other = sampled_request(2, kPrompt, kTokens);
  EXPECT_EQ(pair.decode.run(pair.decode.with(pair.prefill.prefill(subject()), other)),
            alone(other));
  pair.decode.expect_all_blocks_free();
}

TEST(EngineKv, AClientThatLeavesFreesBothSides) {
  Pair pair({.max_num_seqs = 1});
  Request first = sampled_request(7, 20, 100);
  pair.decode.test.submit(first);
  const SequenceId running = pair.decode.test.last_id;
  ASSERT_TRUE(pair.decode.test.engine->step(pair.decode.test.all_to_all));
  // It waits in the queue with its ticket: its lease ends with it.
  const Outcome& waiting =
      pair.decode.test.submit(pair.decode.with(pair.prefill.prefill(subject()), subject()));
  ASSERT_TRUE(pair.decode.test.engine->step(pair.decode.test.all_to_all));
  pair.decode.test.engine->cancel(pair.decode.test.last_id);
  pair.decode.run_until([&] { return waiting.finish.has_value(); });
  EXPECT_EQ(waiting.finish, FinishReason::kAbort);
  pair.prefill.expect_all_blocks_free();
  pair.decode.test.engine->cancel(running);
  pair.expect_all_blocks_free();
}

// Its pulls end when the test says so.
class HeldSource : public kv::KvSource {
 public:
  explicit HeldSource(kv::KvPort& port) : port_(port) { port.set_kv_source(this); }

  void hold(const kv::TicketPtr&) override { ++num_held; }

  void pull(kv::PullJob job) override { jobs.push_back(std::move(job)); }

  void cancel(SequenceId sequence) override { cancelled.push_back(sequence); }

  void let_go(const kv::TicketPtr&) override { ++num_let_go; }

  void end(Status status) {
    kv::PullJob job = std::move(jobs.front());
    jobs.erase(jobs.begin());
    port_.pull_ended({.sequence = job.sequence, .status = std::move(status)});
  }

  std::vector<kv::PullJob> jobs;
  std::vector<SequenceId> cancelled;
  int num_held = 0;
  int num_let_go = 0;

 private:
  kv::KvPort& port_;
};

struct WithHeldSource {
  explicit WithHeldSource(EngineOptions options = TestEngine::small_options())
      : test(options), source(*test.engine->kv_port()) {}

  // A ticket that fits.
  static Request with_ticket(Request request) {
    engine::Sequence sequence(
        SequenceId{0}, request, 1000,
        {.root = api::block_hash_root("fake", model::NumericConfig().describe(), "")});
    auto ticket = std::make_shared<kv::SealedTicket>();
    ticket->ticket.num_tokens = sequence.num_prompt();
    ticket->ticket.prompt_hash = sequence.prompt_hash(16);
    ticket->ticket.blocks.resize(static_cast<size_t>((sequence.num_prompt() + 15) / 16));
    request.ticket = ticket;
    return request;
  }

  void step() { ASSERT_TRUE(test.engine->step(test.all_to_all)); }

  // Until the engine would sleep.
  void settle() {
    for (int i = 0; test.engine->has_work(); ++i) {
      ASSERT_LT(i, 1000);
      step();
    }
  }

  TestEngine test;
  HeldSource source;
};

TEST(EngineKv, SleepsWhileAPullIsUnderWayAndOthersDecodeMeanwhile) {
  WithHeldSource rank;
  const Outcome& pulled = rank.test.submit(WithHeldSource::with_ticket(subject()));
  rank.settle();
  ASSERT_EQ(rank.source.jobs.size(), 1U);
  EXPECT_EQ(rank.source.jobs[0].targets.size(), 5U);
  EXPECT_EQ(rank.source.num_held, 1);
  const Outcome& other = rank.test.submit(sampled_request(5, 30, 10));
  rank.settle();
  EXPECT_TRUE(other.finish);
  EXPECT_FALSE(pulled.finish);
  rank.source.end(error(ErrorCode::kTimeout, "nothing came"));
  rank.settle();
  EXPECT_EQ(pulled.finish, FinishReason::kError);
  EXPECT_EQ(rank.test.engine->stats().num_kv_blocks_free, 200);
}

TEST(EngineKv, TheBlocksOfACancelledPullStayUntilTheCopyHasEnded) {
  WithHeldSource rank;
  const Outcome& outcome = rank.test.submit(WithHeldSource::with_ticket(subject()));
  rank.settle();
  rank.test.engine->cancel(rank.test.last_id);
  rank.settle();
  EXPECT_EQ(outcome.finish, FinishReason::kAbort);
  EXPECT_EQ(rank.source.cancelled.size(), 1U);
  EXPECT_EQ(rank.test.engine->stats().num_kv_blocks_free, 195) << "still written to";
  rank.source.end(error(ErrorCode::kCancelled, "cancelled"));
  rank.settle();
  EXPECT_EQ(rank.test.engine->stats().num_kv_blocks_free, 200);
}

TEST(EngineKv, AGroupThatIsLostLeavesThePullsToEndByThemselves) {
  WithHeldSource rank;
  const Outcome& outcome = rank.test.submit(WithHeldSource::with_ticket(subject()));
  rank.settle();
  rank.test.engine->fail_all({ErrorCode::kPeerLost, "rank 1 is gone"});
  EXPECT_EQ(outcome.finish, FinishReason::kError);
  EXPECT_EQ(rank.source.cancelled.size(), 1U);
  rank.source.end(error(ErrorCode::kCancelled, "cancelled"));
  rank.settle();
  EXPECT_EQ(rank.test.engine->stats().num_kv_blocks_free, 200);
}

TEST(EngineKv, NewsOfLeasesDoNotWakeASleepingGroup) {
  EngineOptions options = TestEngine::small_options();
  options.produces_kv = true;
  TestEngine test(options);
  Request request = subject();
  request.keep_kv = true;
  request.stop.max_tokens = 1;
  const Outcome& outcome = test.generate(request);
  const int64_t num_programs = test.all_to_all.num_programs;
  const int64_t num_sleeps = test.all_to_all.num_sleeps;
  EXPECT_EQ(test.engine->stats().num_kv_blocks_free, 195);
  test.engine->kv_port()->leases().release(kv::LeaseId{outcome.last.kv_ticket->lease_id});
  EXPECT_TRUE(test.engine->has_work());
  ASSERT_TRUE(test.engine->step(test.all_to_all));
  EXPECT_FALSE(test.engine->has_work());
  EXPECT_EQ(test.engine->stats().num_kv_blocks_free, 200);
  EXPECT_EQ(test.all_to_all.num_programs, num_programs);
  EXPECT_EQ(test.all_to_all.num_sleeps, num_sleeps);
}

TEST(EngineKv, ALeaseThatExpiresFreesItsBlocksForARequestThatWaitsForThem) {
  EngineOptions options = TestEngine::small_options();
  options.produces_kv = true;
  options.num_kv_blocks = 8;
  options.max_model_len = 100;
  TestEngine test(options);
  Request request = subject();
  request.keep_kv = true;
  request.stop.max_tokens = 1;
  ASSERT_TRUE(test.generate(request).last.kv_ticket);
  Outcome& next = test.submit(sampled_request(3, 90, 1));
  for (int i = 0; test.engine->has_work(); ++i) {
    ASSERT_LT(i, 10) << "it must sleep until there is room";
    ASSERT_TRUE(test.engine->step(test.all_to_all));
  }
  EXPECT_FALSE(next.finish);
  test.clock.advance(std::chrono::seconds(31));
  test.engine->kv_port()->leases().expire();
  test.run();
  EXPECT_TRUE(next.finish);
  EXPECT_EQ(test.engine->kv_port()->leases().stats().num_expired, 1);
}

TEST(EngineKv, TooManyLeasesMeanAnAnswerWithoutATicket) {
  EngineOptions options = TestEngine::small_options();
  options.produces_kv = true;
  options.leases.blocks_max = 4;
  TestEngine test(options);
  Request request = subject();
  request.keep_kv = true;
  request.stop.max_tokens = 1;
  const Outcome& outcome = test.generate(request);
  EXPECT_EQ(outcome.finish, FinishReason::kLength);
  EXPECT_FALSE(outcome.last.kv_ticket);
  EXPECT_EQ(test.engine->stats().num_kv_blocks_free, 200);
}

TEST(EngineKv, AnEngineWithoutKvTransferRefusesBothLegs) {
  TestEngine test;
  Request keep = subject();
  keep.keep_kv = true;
  EXPECT_FALSE(test.engine->submit(keep, [](auto&) {}));
  EXPECT_FALSE(test.engine->submit(WithHeldSource::with_ticket(subject()), [](auto&) {}));
}

}  // namespace
}  // namespace wideep::engine
