#include "engine/scheduler.h"

#include "base/random.h"
#include "engine/sequence.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace wideep::engine {
namespace {

constexpr int64_t kBlockTokens = 16;
constexpr int64_t kRowsMax = 1 << 20;

struct RequestShape {
  int64_t prompt = 4;
  int64_t max_tokens = 4;
  int32_t priority = 0;
  int32_t first_token = -1;  // equal ones share a prefix; -1: unlike any other
};

// A scheduler, its cache, and a stand-in for the model that appends a token where one is sampled.
class Bench {
 public:
  Bench(int64_t num_blocks, SchedulerOptions options)
      : cache(*kv::BlockPool::create(layout(), num_blocks), kv::PrefixCaching::kOn),
        scheduler(cache, options) {}

  Sequence& add(const RequestShape& shape) {
    const int64_t id = next_id_++;
    Request request;
    const auto first = static_cast<int32_t>(shape.first_token < 0 ? 1000 * id : shape.first_token);
    for (int32_t i = 0; i < shape.prompt; ++i)
      request.prompt_tokens.push_back(TokenId{first + i});
    request.stop.max_tokens = shape.max_tokens;
    request.priority = shape.priority;
    auto sequence = std::make_unique<Sequence>(SequenceId{id}, request, 1 << 20,
                                               BlockNaming{api::block_hash_root("m", "n", "")});
    Sequence& added = *sequence;
    scheduler.add(std::move(sequence));
    return added;
  }

  // Runs one step; finished sequences are removed.
  StepPlan step(int64_t rows_max = kRowsMax) {
    const StepPlan plan = scheduler.next(rows_max);
    check(plan);
    std::vector<Sequence*> sampling;
    for (const ScheduledRows& rows : plan.sequences)
      if (rows.samples()) sampling.push_back(rows.sequence);
    for (const ScheduledRows& rows : plan.sequences)
      scheduler.commit(*rows.sequence, rows.count);
    for (Sequence* sequence : sampling) {
      sequence->append(TokenId{static_cast<int32_t>(sequence->num_tokens())});
      preemptions_max = std::max(preemptions_max, sequence->num_preemptions);
      if (sequence->num_tokens() == sequence->num_tokens_max()) scheduler.remove(*sequence);
    }
    return plan;
  }

  kv::KvCache cache;
  Scheduler scheduler;
  int32_t preemptions_max = 0;

 private:
  static kv::KvLayout layout() {
    return {.groups = {
                {.name = "mla", .num_layers = 1, .token_bytes = 8, .block_tokens = kBlockTokens}}};
  }

  // What must hold for every plan.
  void check(const StepPlan& plan) const {
    int64_t num_rows = 0;
    for (const ScheduledRows& rows : plan.sequences) {
      const Sequence& sequence = *rows.sequence;
      EXPECT_EQ(sequence.state, SequenceState::kRunning);
      EXPECT_GT(rows.count, 0);
      EXPECT_LE(rows.count, sequence.num_pending());
      const int64_t end = sequence.num_computed + rows.count;
      EXPECT_GE(static_cast<int64_t>(sequence.blocks.size()) * kBlockTokens, end);
      for (auto block = static_cast<size_t>(sequence.num_computed / kBlockTokens);
           block < sequence.blocks.size(); ++block)  // what is written belongs to nobody else
        EXPECT_EQ(cache.pool().num_references(sequence.blocks[block]), 1);
      num_rows += rows.count;
    }
    EXPECT_EQ(plan.num_rows, num_rows);
  }

  int64_t next_id_ = 1;
};

int64_t rows_of(const StepPlan& plan, const Sequence& sequence) {
  for (const ScheduledRows& rows : plan.sequences)
    if (rows.sequence == &sequence) return rows.count;
  return 0;
}

TEST(Scheduler, FillsTheBudgetWithAChunkBesideEveryDecode) {
  Bench bench(100, {.max_num_seqs = 4, .max_num_batched_tokens = 10});
  Sequence& a = bench.add({.prompt = 3, .max_tokens = 9});
  Sequence& b = bench.add({.prompt = 25, .max_tokens = 9});
  StepPlan plan = bench.step();
  EXPECT_EQ(rows_of(plan, a), 3);
  EXPECT_EQ(rows_of(plan, b), 7);
  plan = bench.step();
  EXPECT_EQ(rows_of(plan, a), 1);
  EXPECT_EQ(rows_of(plan, b), 9);
  EXPECT_EQ(plan.num_prefill_rows, 9);
  plan = bench.step();
  EXPECT_EQ(rows_of(plan, b), 9);
  EXPECT_EQ(b.num_generated(), 1);
}

TEST(Scheduler, KeepsARowForDecodesBehindALongPrompt) {
  Bench bench(100, {.max_num_seqs = 4, .max_num_batched_tokens = 8});
  Sequence& other = bench.add({.prompt = 2, .max_tokens = 50, .priority = 1});
  bench.step();
  Sequence& urgent = bench.add({.prompt = 100, .priority = 0});
  const StepPlan plan = bench.step();
  EXPECT_EQ(rows_of(plan, urgent), 7);
  EXPECT_EQ(rows_of(plan, other), 1);
}

TEST(Scheduler, BringsNoMoreRowsThanTheProgramHasRoomFor) {
  Bench bench(100, {.max_num_seqs = 8, .max_num_batched_tokens = 64});
  for (int i = 0; i < 8; ++i)
    bench.add({.prompt = 20});
  EXPECT_EQ(bench.step(5).num_rows, 5);
  EXPECT_EQ(bench.step(0).num_rows, 0);
  EXPECT_EQ(bench.step(64).num_rows, 64);
}

TEST(Scheduler, RunsNoMoreSequencesThanAllowed) {
  Bench bench(100, {.max_num_seqs = 2, .max_num_batched_tokens = 64});
  for (int i = 0; i < 5; ++i)
    bench.add({.prompt = 4});
  bench.step();
  EXPECT_EQ(bench.scheduler.num_running(), 2);
  EXPECT_EQ(bench.scheduler.num_waiting(), 3);
}

TEST(Scheduler, DoesNotOvertakeTheFirstThatWaitsForBlocks) {
  Bench bench(4, {.max_num_seqs = 8, .max_num_batched_tokens = 64});
  Sequence& first = bench.add({.prompt = 33, .max_tokens = 15});
  bench.step();
  Sequence& large = bench.add({.prompt = 30, .max_tokens = 2});
  Sequence& small = bench.add({.prompt = 4, .max_tokens = 2});
  bench.step();
  EXPECT_EQ(first.state, SequenceState::kRunning);
  EXPECT_EQ(large.state, SequenceState::kWaiting);
  EXPECT_EQ(small.state, SequenceState::kWaiting);  // though it would fit
}

TEST(Scheduler, PreemptsTheLatestWhenBlocksRunOut) {
  Bench bench(4, {.max_num_seqs = 8, .max_num_batched_tokens = 64});
  Sequence& first = bench.add({.prompt = 31, .max_tokens = 30});
  Sequence& second = bench.add({.prompt = 31, .max_tokens = 30});
  bench.step();
  bench.step();  // both have 33 tokens now, 32 of them in two full blocks
  bench.step();  // both want a third: only the first gets it
  EXPECT_EQ(first.state, SequenceState::kRunning);
  EXPECT_EQ(second.state, SequenceState::kWaiting);
  EXPECT_EQ(second.num_preemptions, 1);
  EXPECT_EQ(second.num_computed, 0);
  EXPECT_EQ(second.num_generated(), 2);  // it keeps its tokens: they are its prefix now
  for (int i = 0; i < 200 && !bench.scheduler.empty(); ++i)
    bench.step();
  EXPECT_TRUE(bench.scheduler.empty());
  EXPECT_EQ(bench.cache.num_available(), 4);
}

TEST(Scheduler, PreemptsALowerPriorityToAdmitAHigherOne) {
  Bench bench(4, {.max_num_seqs = 8, .max_num_batched_tokens = 64});
  Sequence& background = bench.add({.prompt = 40, .max_tokens = 8, .priority = 5});
  bench.step();
  Sequence& equal = bench.add({.prompt = 40, .max_tokens = 8, .priority = 5});
  bench.step();
  EXPECT_EQ(equal.state, SequenceState::kWaiting);
  Sequence& urgent = bench.add({.prompt = 40, .max_tokens = 8, .priority = 1});
  bench.step();
  EXPECT_EQ(urgent.state, SequenceState::kRunning);
  EXPECT_EQ(background.state, SequenceState::kWaiting);
}

TEST(Scheduler, PreemptsNobodyInVain) {
  Bench bench(4, {.max_num_seqs = 8, .max_num_batched_tokens = 64});
  Sequence& first = bench.add({.prompt = 33, .max_tokens = 8, .priority = 1});
  Sequence& low = bench.add({.prompt = 4, .max_tokens = 8, .priority = 5});
  bench.step();
  bench.add({.prompt = 40, .max_tokens = 8, .priority = 1});  // needs three: `low` has one
  bench.step();
  EXPECT_EQ(first.state, SequenceState::kRunning);
  EXPECT_EQ(low.state, SequenceState::kRunning);
}

TEST(Scheduler, SharesAPromptThatIsInTheCache) {
  Bench bench(20, {.max_num_seqs = 8, .max_num_batched_tokens = 64});
  bench.add({.prompt = 40, .max_tokens = 1, .first_token = 7});
  bench.step();
  ASSERT_TRUE(bench.scheduler.empty());
  Sequence& again = bench.add({.prompt = 40, .max_tokens = 4, .first_token = 7});
  const StepPlan plan = bench.step();
  EXPECT_EQ(again.cached_tokens, 32);
  EXPECT_EQ(rows_of(plan, again), 8);
  EXPECT_EQ(bench.scheduler.stats().prefix_cache_hits, 32);
  EXPECT_EQ(bench.scheduler.stats().prefix_cache_queries, 80);
}

TEST(Scheduler, ComputesTheLastTokenEvenIfEverythingIsCached) {
  Bench bench(20, {.max_num_seqs = 8, .max_num_batched_tokens = 64});
  bench.add({.prompt = 32, .max_tokens = 1, .first_token = 7});
  bench.step();
  Sequence& again = bench.add({.prompt = 32, .max_tokens = 4, .first_token = 7});
  const StepPlan plan = bench.step();
  EXPECT_EQ(rows_of(plan, again), 16);
  EXPECT_EQ(again.num_generated(), 1);
}

TEST(Scheduler, LetsATwinWaitForTheBlocksThatAreBeingFilled) {
  Bench bench(40, {.max_num_seqs = 8, .max_num_batched_tokens = 21});
  Sequence& first = bench.add({.prompt = 40, .first_token = 7});
  Sequence& twin = bench.add({.prompt = 40, .first_token = 7});
  Sequence& other = bench.add({.prompt = 4});
  bench.step();
  EXPECT_EQ(first.num_computed, 21);
  bench.step();
  EXPECT_EQ(twin.state, SequenceState::kWaitingForKv);
  while (twin.num_generated() == 0)
    bench.step();
  EXPECT_EQ(twin.cached_tokens, 32);
  EXPECT_GT(other.num_computed, 0);  // it did not have to wait for them
}

TEST(Scheduler, LooksPastABoundedNumberOfWaitingTwins) {
  Bench bench(100, {.max_num_seqs = 8, .max_num_batched_tokens = 45});
  bench.add({.prompt = 100, .first_token = 7});
  for (int64_t i = 0; i + 1 < Scheduler::kAdmissionScanMax; ++i)
    bench.add({.prompt = 100, .first_token = 7});
  Sequence& within = bench.add({.prompt = 4});
  Sequence& beyond = bench.add({.prompt = 4});
  bench.step();
  bench.step();
  bench.step();  // ten tokens of the first prompt were left, and its sixth block is being filled
  EXPECT_EQ(within.state, SequenceState::kRunning);
  EXPECT_EQ(beyond.state, SequenceState::kWaiting);
}

TEST(Scheduler, LetsNobodyWaitForALoaderOfLowerPriority) {
  Bench bench(40, {.max_num_seqs = 8, .max_num_batched_tokens = 20});
  bench.add({.prompt = 40, .priority = 3, .first_token = 7});
  bench.step();
  Sequence& urgent = bench.add({.prompt = 40, .priority = 1, .first_token = 7});
  const StepPlan plan = bench.step();
  EXPECT_EQ(rows_of(plan, urgent), 20);  // and the loader gets nothing
}

TEST(Scheduler, AnnouncesWhatItWillBringNext) {
  Bench bench(100, {.max_num_seqs = 4, .max_num_batched_tokens = 16});
  EXPECT_FALSE(bench.scheduler.wish(kRowsMax).has_work);
  EXPECT_EQ(bench.scheduler.wish(kRowsMax).num_tokens, 0);
  bench.add({.prompt = 12});
  EXPECT_EQ(bench.scheduler.wish(kRowsMax).num_tokens, 1);  // after the coming step it decodes
  EXPECT_EQ(bench.scheduler.wish(2).num_tokens, 11);        // most of it is left over
  bench.add({.prompt = 12});
  EXPECT_EQ(bench.scheduler.wish(kRowsMax).num_tokens, 10);  // two decodes, at most 8 left over
  bench.add({.prompt = 1000});
  EXPECT_EQ(bench.scheduler.wish(kRowsMax).num_tokens, 16);
}

// Random loads on caches that are far too small: everything finishes, in bounded time, nobody is
// preempted more often than promised, no block is lost.
TEST(Scheduler, FinishesEverythingHoweverSmallTheCache) {
  int32_t preemptions_max = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const auto num_blocks = static_cast<int64_t>(6 + random.below(20));
    const auto max_num_seqs = static_cast<int64_t>(1 + random.below(8));
    Bench bench(num_blocks,
                {.max_num_seqs = max_num_seqs,
                 .max_num_batched_tokens = static_cast<int64_t>(max_num_seqs + random.below(40))});
    const bool has_priorities = random.below(2) == 0;
    int64_t num_tokens = 0;
    int64_t num_steps = 0;
    int64_t announced = kRowsMax;
    for (int64_t left = 40; left > 0 || !bench.scheduler.empty(); ++num_steps) {
      while (left > 0 && random.below(3) == 0) {
        const auto prompt = static_cast<int64_t>(1 + random.below(60));
        const int64_t room = num_blocks * kBlockTokens - prompt;
        const auto max_tokens = static_cast<int64_t>(
            1 + random.below(static_cast<uint64_t>(std::min<int64_t>(room, 80))));
        bench.add({.prompt = prompt,
                   .max_tokens = max_tokens,
                   .priority = has_priorities ? static_cast<int32_t>(random.below(3)) : 0,
                   .first_token = static_cast<int32_t>(random.below(3))});
        num_tokens += prompt + max_tokens;
        --left;
      }
      const int64_t next = bench.scheduler.wish(announced).num_tokens;
      bench.step(announced);
      announced = next;
      ASSERT_LT(num_steps, 100 + 20 * num_tokens);
    }
    EXPECT_EQ(bench.cache.num_available(), num_blocks);
    preemptions_max = std::max(preemptions_max, bench.preemptions_max);
  }
  EXPECT_EQ(preemptions_max, Scheduler::kPreemptionsMax);  // reached, never passed
}

}  // namespace
}  // namespace wideep::engine
