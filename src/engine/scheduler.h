// Decides which tokens of which sequences a step computes, and who holds KV blocks meanwhile.
//
// Order. Sequences have a precedence: priority, then arrival. A step takes one token of every
// decoding sequence and fills what is left of the token budget with chunks of prompts. Waiting
// sequences are admitted in the same order, first come first served: one that does not fit yet is
// not overtaken, so that large requests do not starve.
//
// Blocks. A sequence is admitted when there are blocks for all its tokens; it takes them at once
// and one more whenever it has filled its last. If none is left, the running sequence of lowest
// precedence is preempted: it gives its blocks back and waits as if it were new, with its generated
// tokens as prefix. A sequence of a higher priority class is admitted first and may preempt for it.
//
// No livelock. The sequence of highest precedence can always get the blocks of all others, and no
// request is taken that does not fit into the cache alone: something always finishes. No thrashing:
// each time a sequence was preempted it asks for twice the headroom; after kPreemptionsMax times it
// comes back only when all the blocks it can ever need are set aside for it, and is never preempted
// again.
//
// Prefix cache. A sequence shares the full blocks that are there for the start of its tokens. If
// another sequence, one that precedes it, is filling the next one right now, it waits for that
// instead of computing the same again (n choices of one prompt, for instance).
//
// Pulls. A sequence with a ticket is admitted like any other, but what its prefix cache lacks is
// copied from another rank while others run: it takes its blocks, is handed to the caller
// (StepPlan::pulls) and gets no rows until pull_ended. Meanwhile nobody can take its blocks, not
// even when it is removed: the copy writes into them.
//
// Ownership: the scheduler owns the sequences. Thread: engine thread only.
#pragma once

#include "engine/sequence.h"
#include "ep/all_to_all.h"
#include "kv/kv_cache.h"

#include <cstdint>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

namespace wideep::engine {

struct SchedulerOptions {
  int64_t max_num_seqs = 64;
  int64_t max_num_batched_tokens = 512;
  int32_t draft_depth = 0;  // tokens to guess for each decoding sequence
};

// Positions [num_computed, num_computed + count) of a sequence, and the first of its drafts behind
// them.
struct ScheduledRows {
  Sequence* sequence = nullptr;
  int64_t count = 0;
  int64_t num_drafts = 0;

  int64_t num_rows() const { return count + num_drafts; }

  // The last row is the sequence's last token: a new one is sampled from it.
  bool samples() const { return count == sequence->num_pending(); }
};

// Blocks of a sequence that a pull must fill: those from `first_block` on, `num_blocks` of them.
// None: everything was there already, its ticket is not needed.
struct PlannedPull {
  Sequence* sequence = nullptr;
  int64_t first_block = 0;
  int64_t num_blocks = 0;
};

struct StepPlan {
  std::vector<ScheduledRows> sequences;
  std::vector<PlannedPull> pulls;
  int64_t num_rows = 0;
  int64_t num_prefill_rows = 0;
};

struct SchedulerStats {
  int64_t num_preemptions = 0;
  int64_t prefix_cache_queries = 0;  // tokens
  int64_t prefix_cache_hits = 0;
  int64_t external_queries = 0;  // tokens that a ticket could bring
  int64_t external_hits = 0;     // and did
};

class Scheduler {
 public:
  static constexpr int32_t kPreemptionsMax = 4;
  // Waiting sequences that one step looks at past those that wait for KV.
  static constexpr int64_t kAdmissionScanMax = 64;

  Scheduler(kv::KvCache& cache, SchedulerOptions options);

  // Whether the cache could hold a sequence of `num_tokens` if it were alone.
  bool can_ever_fit(int64_t num_computed_max) const;

  void add(std::unique_ptr<Sequence> sequence);
  Sequence* find(SequenceId id);
  // Forgets a sequence; its blocks are free, or cached, at once, but those of a pull that goes on.
  void remove(Sequence& sequence);
  // A pull is over; `num_blocks` leading ones of its blocks are good. The sequence runs from there;
  // one that was removed meanwhile gives its blocks back (null).
  Sequence* pull_ended(SequenceId id, int64_t num_blocks);
  // Takes the blocks of its prompt away from a sequence that is about to be removed: their
  // references are the caller's.
  std::vector<BlockId> keep_prompt_blocks(Sequence& sequence);

  // Blocks were given back by others: what waits for them may be admitted now.
  void unblock() { is_blocked_ = false; }

  // The next step, of at most `rows_max` rows. Takes blocks and preempts; advances nothing.
  StepPlan next(int64_t rows_max);
  // The next `count` tokens of the sequence are in the cache.
  void commit(Sequence& sequence, int64_t count);

  // What the step after the coming one may bring, if the coming one has room for `rows_now`. The
  // draft layer runs on all prompts, so that guesses can begin at any time, and on decoding
  // sequences if they are to have `guesses`.
  enum class Guesses : uint8_t { kNone, kWanted };
  ep::StepWish wish(int64_t rows_now, Guesses guesses = Guesses::kWanted) const;

  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }

  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size() + pulling_.size()); }

  // Of the waiting: those that wait for KV which another sequence is filling.
  int64_t num_deferred() const;

  bool empty() const { return sequences_.empty() && orphans_.empty(); }

  // Whether a step could do something: not while all that is there waits for a pull, or for blocks
  // that leases or pulls hold.
  bool has_work() const { return !running_.empty() || (!waiting_.empty() && !is_blocked_); }

  const SchedulerStats& stats() const { return stats_; }

  // In order of precedence; valid until the next change.
  std::vector<Sequence*> all() const;

 private:
  struct Precedes {
    bool operator()(const Sequence* a, const Sequence* b) const { return a->precedes(*b); }
  };

  using Queue = std::set<Sequence*, Precedes>;

  void admit_urgent(StepPlan& plan);
  void schedule_running(StepPlan& plan, int64_t rows_max);
  void admit_waiting(StepPlan& plan, int64_t rows_max);
  bool make_room(Sequence& sequence);
  int64_t make_room_for_drafts(Sequence& sequence, int64_t rows_max);
  Sequence* victim_for(const Sequence& sequence) const;
  void preempt(Sequence& sequence);
  void admit(Sequence& sequence, const kv::PrefixMatch& match, StepPlan& plan);
  bool begin_pull(Sequence& sequence, StepPlan& plan);

  kv::PrefixMatch match(Sequence& sequence) const;
  bool has_prompts() const;
  bool must_wait_for(const kv::PrefixMatch& match, const Sequence& sequence) const;
  bool fits(const Sequence& sequence, const kv::PrefixMatch& match) const;
  int64_t blocks_wanted(const Sequence& sequence, const kv::PrefixMatch& match) const;
  int64_t blocks_to_end(const Sequence& sequence) const;
  int64_t blocks_available_to(const Sequence& sequence) const;
  int64_t blocks_only_of(const Sequence& sequence) const;

  kv::KvCache& cache_;
  SchedulerOptions options_;
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  Queue waiting_;
  Queue running_;
  Queue pulling_;
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> orphans_;  // removed while pulling
  bool is_blocked_ = false;  // nothing that waits could be admitted
  SchedulerStats stats_;
};

}  // namespace wideep::engine
