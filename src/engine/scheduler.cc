#include "engine/scheduler.h"

#include "base/check.h"

#include <algorithm>
#include <utility>

namespace wideep::engine {
namespace {

void schedule(StepPlan& plan, const ScheduledRows& rows) {
  if (rows.count <= 0) return;
  plan.sequences.push_back(rows);
  plan.num_rows += rows.num_rows();
  if (rows.sequence->num_pending() > 1) plan.num_prefill_rows += rows.count;
}

}  // namespace

Scheduler::Scheduler(kv::KvCache& cache, SchedulerOptions options)
    : cache_(cache), options_(options) {
  WD_CHECK(options_.max_num_seqs > 0);
  // Otherwise a running prompt might never get a row beside the decoding sequences.
  WD_CHECK(options_.max_num_batched_tokens >= options_.max_num_seqs);
}

bool Scheduler::can_ever_fit(int64_t num_computed_max) const {
  return cache_.blocks_for(num_computed_max) <= cache_.num_blocks();
}

void Scheduler::add(std::unique_ptr<Sequence> sequence) {
  WD_CHECK(can_ever_fit(sequence->num_computed_max()));
  waiting_.insert(sequence.get());
  is_blocked_ = false;
  sequences_.emplace(sequence->id(), std::move(sequence));
}

Sequence* Scheduler::find(SequenceId id) {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : it->second.get();
}

void Scheduler::remove(Sequence& sequence) {
  is_blocked_ = false;
  const auto owner = sequences_.find(sequence.id());
  if (pulling_.erase(&sequence) > 0) {
    orphans_.emplace(sequence.id(), std::move(owner->second));
  } else {
    cache_.give_back(sequence.blocks);
    (sequence.state == SequenceState::kRunning ? running_ : waiting_).erase(&sequence);
  }
  sequences_.erase(owner);
}

Sequence* Scheduler::pull_ended(SequenceId id, int64_t num_blocks) {
  is_blocked_ = false;
  if (const auto orphan = orphans_.find(id); orphan != orphans_.end()) {
    cache_.give_back(orphan->second->blocks);
    orphans_.erase(orphan);
    return nullptr;
  }
  Sequence& sequence = *sequences_.at(id);
  pulling_.erase(&sequence);
  const int64_t block_tokens = cache_.block_tokens();
  const int64_t end = std::min(sequence.num_pullable(),
                               (sequence.num_computed / block_tokens + num_blocks) * block_tokens);
  const int64_t num_pulled = std::max<int64_t>(0, end - sequence.num_computed);
  commit(sequence, num_pulled);
  sequence.pulled_tokens = num_pulled;
  stats_.external_hits += num_pulled;
  sequence.can_pull = false;
  sequence.state = SequenceState::kRunning;
  running_.insert(&sequence);
  return &sequence;
}

std::vector<BlockId> Scheduler::keep_prompt_blocks(Sequence& sequence) {
  WD_CHECK(sequence.num_computed >= sequence.num_prompt());
  const auto end = sequence.blocks.begin() + cache_.blocks_for(sequence.num_prompt());
  std::vector<BlockId> kept(sequence.blocks.begin(), end);
  sequence.blocks.erase(sequence.blocks.begin(), end);
  return kept;
}

std::vector<Sequence*> Scheduler::all() const {
  std::vector<Sequence*> all(running_.begin(), running_.end());
  all.insert(all.end(), waiting_.begin(), waiting_.end());
  all.insert(all.end(), pulling_.begin(), pulling_.end());
  std::ranges::sort(all, Precedes());
  return all;
}

int64_t Scheduler::num_deferred() const {
  return std::ranges::count(waiting_, SequenceState::kWaitingForKv, &Sequence::state);
}

StepPlan Scheduler::next(int64_t rows_max) {
  rows_max = std::min(rows_max, options_.max_num_batched_tokens);
  StepPlan plan;
  admit_urgent(plan);
  schedule_running(plan, rows_max);
  admit_waiting(plan, rows_max);
  // Nothing runs, nothing could be admitted, and somebody else holds blocks: without news from them
  // the next step would find the same.
  is_blocked_ = rows_max > 0 && running_.empty() && !waiting_.empty() &&
                cache_.num_available() < cache_.num_blocks();
  return plan;
}

void Scheduler::commit(Sequence& sequence, int64_t count) {
  const int64_t first = sequence.num_computed / cache_.block_tokens();
  sequence.num_computed += count;
  const int64_t end = sequence.num_computed / cache_.block_tokens();
  const auto names = sequence.block_names(cache_.block_tokens());
  for (int64_t block = first; block < end; ++block)
    cache_.publish(sequence.blocks[block], names[block]);
}

// What does not fit into the coming step is left over; all others decode then. Waiting sequences
// count as far as they are likely to be admitted, the first one always: were its rows never
// announced, there might never be room for them.
ep::StepWish Scheduler::wish(int64_t rows_now, Guesses guesses) const {
  int64_t num_sequences = num_running() + static_cast<int64_t>(pulling_.size());
  int64_t num_pending = 0;
  for (const Sequence* sequence : running_)
    num_pending += sequence->num_pending();
  int64_t blocks = cache_.num_available();
  for (const Sequence* sequence : waiting_) {
    if (num_sequences == options_.max_num_seqs) break;
    blocks -= cache_.blocks_for(sequence->num_tokens());
    if (blocks < 0 && sequence != *waiting_.begin()) break;
    ++num_sequences;
    num_pending += sequence->num_pending() - sequence->num_pullable();
    if (num_pending >= 2 * options_.max_num_batched_tokens) break;
  }
  rows_now = std::min(rows_now, options_.max_num_batched_tokens);
  const int64_t left_over = std::max<int64_t>(0, num_pending - rows_now);
  const int64_t num_rows = num_sequences * (1 + options_.draft_depth) + left_over;
  return {.num_tokens = std::min(num_rows, options_.max_num_batched_tokens),
          .has_work = has_work(),
          .draft_depth = guesses == Guesses::kWanted || has_prompts() ? options_.draft_depth : 0};
}

bool Scheduler::has_prompts() const {
  return !waiting_.empty() || std::ranges::any_of(running_, [](const Sequence* sequence) {
    return sequence->num_pending() > 1;
  });
}

// Admits waiting sequences of a higher priority class than a running one before any rows are given
// out, and preempts lower ones for them if that helps.
void Scheduler::admit_urgent(StepPlan& plan) {
  while (!waiting_.empty() && !running_.empty()) {
    Sequence& urgent = **waiting_.begin();
    if (urgent.request().priority >= (*running_.rbegin())->request().priority) return;
    const kv::PrefixMatch found = match(urgent);
    if (must_wait_for(found, urgent)) return;
    if (fits(urgent, found)) {
      waiting_.erase(waiting_.begin());
      admit(urgent, found, plan);
      continue;
    }
    Sequence* victim = nullptr;
    int64_t blocks = blocks_available_to(urgent) - found.num_idle;
    for (Sequence* sequence : running_) {
      if (sequence->is_reserved || sequence->request().priority <= urgent.request().priority)
        continue;
      victim = sequence;
      blocks += blocks_only_of(*sequence);
    }
    if (victim == nullptr || blocks < blocks_wanted(urgent, found)) return;
    preempt(*victim);
  }
}

void Scheduler::schedule_running(StepPlan& plan, int64_t rows_max) {
  int64_t num_decodes_behind = std::ranges::count_if(
      running_, [](const Sequence* sequence) { return sequence->num_pending() == 1; });
  for (auto it = running_.begin(); it != running_.end() && plan.num_rows < rows_max;) {
    Sequence& sequence = **it;
    const int64_t pending = sequence.num_pending();
    if (pending == 1) --num_decodes_behind;
    const int64_t room = rows_max - plan.num_rows - (pending == 1 ? 0 : num_decodes_behind);
    const bool has_blocks = make_room(sequence);
    // Whoever was preempted stood behind this sequence, or is this sequence itself.
    it = running_.upper_bound(&sequence);
    if (!has_blocks) continue;
    ScheduledRows rows{.sequence = &sequence, .count = std::min(pending, room)};
    if (pending == 1)
      rows.num_drafts = make_room_for_drafts(sequence, room - 1 - num_decodes_behind);
    schedule(plan, rows);
  }
}

void Scheduler::admit_waiting(StepPlan& plan, int64_t rows_max) {
  int64_t num_scanned = 0;
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    Sequence& sequence = **it;
    if (plan.num_rows >= rows_max && !sequence.can_pull) return;
    if (++num_scanned > kAdmissionScanMax) return;
    const kv::PrefixMatch found = match(sequence);
    if (must_wait_for(found, sequence)) {
      sequence.state = SequenceState::kWaitingForKv;
      ++it;
      continue;
    }
    sequence.state = SequenceState::kWaiting;
    if (!fits(sequence, found)) return;
    it = waiting_.erase(it);
    admit(sequence, found, plan);
    if (sequence.state == SequenceState::kPulling) continue;
    schedule(plan, {.sequence = &sequence,
                    .count = std::min(sequence.num_pending(), rows_max - plan.num_rows)});
  }
}

// Sees that the sequence has blocks for its tokens, at the cost of those behind it. False: it had
// to give up its own.
bool Scheduler::make_room(Sequence& sequence) {
  const auto held = static_cast<int64_t>(sequence.blocks.size());
  const int64_t wanted = cache_.blocks_for(sequence.num_tokens()) - held;
  if (wanted <= 0) return true;
  while (blocks_available_to(sequence) < wanted) {
    Sequence* victim = victim_for(sequence);
    preempt(victim != nullptr ? *victim : sequence);
    if (victim == nullptr) return false;
  }
  const Status taken = cache_.take(wanted, sequence.blocks);
  WD_CHECK(taken.has_value());
  return true;
}

// How many drafts can be computed beside the last token: nobody is preempted for a guess.
int64_t Scheduler::make_room_for_drafts(Sequence& sequence, int64_t rows_max) {
  const int64_t num_drafts = std::min({static_cast<int64_t>(sequence.drafts.size()), rows_max,
                                       sequence.num_computed_max() - sequence.num_tokens()});
  if (num_drafts <= 0) return 0;
  const auto held = static_cast<int64_t>(sequence.blocks.size());
  const int64_t wanted = cache_.blocks_for(sequence.num_tokens() + num_drafts) - held;
  if (wanted <= 0) return num_drafts;
  if (blocks_available_to(sequence) < wanted) return 0;
  const Status taken = cache_.take(wanted, sequence.blocks);
  WD_CHECK(taken.has_value());
  return num_drafts;
}

Sequence* Scheduler::victim_for(const Sequence& sequence) const {
  for (auto it = running_.rbegin(); it != running_.rend() && *it != &sequence; ++it)
    if (!(*it)->is_reserved) return *it;
  return nullptr;
}

void Scheduler::preempt(Sequence& sequence) {
  WD_CHECK(!sequence.is_reserved);
  cache_.give_back(sequence.blocks);
  sequence.drafts.clear();
  sequence.num_computed = 0;
  sequence.state = SequenceState::kWaiting;
  ++sequence.num_preemptions;
  ++stats_.num_preemptions;
  running_.erase(&sequence);
  waiting_.insert(&sequence);
}

void Scheduler::admit(Sequence& sequence, const kv::PrefixMatch& found, StepPlan& plan) {
  const int64_t block_tokens = cache_.block_tokens();
  const auto num_shared = static_cast<int64_t>(found.blocks.size());
  cache_.share(found, sequence.blocks);
  const Status taken =
      cache_.take(cache_.blocks_for(sequence.num_tokens()) - num_shared, sequence.blocks);
  WD_CHECK(taken.has_value());
  const auto names = sequence.block_names(block_tokens);
  for (auto block = num_shared; block < static_cast<int64_t>(names.size()); ++block)
    cache_.announce(sequence.blocks[block], names[block], sequence.id());

  sequence.num_computed = num_shared * block_tokens;
  sequence.is_reserved = sequence.num_preemptions >= kPreemptionsMax;
  if (sequence.cached_tokens < 0) {
    sequence.cached_tokens = sequence.num_computed;
    stats_.prefix_cache_queries += sequence.num_tokens();
    stats_.prefix_cache_hits += sequence.num_computed;
  }
  if (begin_pull(sequence, plan)) return;
  sequence.state = SequenceState::kRunning;
  running_.insert(&sequence);
}

// False: there is nothing to pull.
bool Scheduler::begin_pull(Sequence& sequence, StepPlan& plan) {
  if (!sequence.can_pull) return false;
  const int64_t first = sequence.num_computed / cache_.block_tokens();
  const int64_t num_blocks = cache_.blocks_for(sequence.num_pullable()) - first;
  plan.pulls.push_back({&sequence, first, std::max<int64_t>(0, num_blocks)});
  stats_.external_queries += sequence.num_tokens() - sequence.num_computed;
  sequence.can_pull = num_blocks > 0;
  if (!sequence.can_pull) return false;
  sequence.state = SequenceState::kPulling;
  pulling_.insert(&sequence);
  return true;
}

// The last token is always computed: its logits are wanted.
kv::PrefixMatch Scheduler::match(Sequence& sequence) const {
  const auto names = sequence.block_names(cache_.block_tokens());
  const auto usable = static_cast<size_t>((sequence.num_tokens() - 1) / cache_.block_tokens());
  return cache_.match(names.first(std::min(usable, names.size())));
}

bool Scheduler::must_wait_for(const kv::PrefixMatch& found, const Sequence& sequence) const {
  if (!found.loader) return false;
  const auto loader = sequences_.find(*found.loader);
  return loader != sequences_.end() && loader->second->precedes(sequence);
}

bool Scheduler::fits(const Sequence& sequence, const kv::PrefixMatch& found) const {
  const auto num_admitted = static_cast<int64_t>(running_.size() + pulling_.size());
  return num_admitted < options_.max_num_seqs &&
         blocks_available_to(sequence) - found.num_idle >= blocks_wanted(sequence, found);
}

// What must be available to admit it: all its tokens and, the more often it was preempted, part or
// all of what it may still grow by.
int64_t Scheduler::blocks_wanted(const Sequence& sequence, const kv::PrefixMatch& found) const {
  const int64_t now = cache_.blocks_for(sequence.num_tokens());
  const int64_t at_end = std::max(now, cache_.blocks_for(sequence.num_computed_max()));
  const int64_t headroom = sequence.num_preemptions >= kPreemptionsMax
                               ? at_end
                               : (int64_t{1} << sequence.num_preemptions) - 1;
  return std::min(now + headroom, at_end) - static_cast<int64_t>(found.blocks.size());
}

// Blocks that a running sequence may still come to need.
int64_t Scheduler::blocks_to_end(const Sequence& sequence) const {
  const auto held = static_cast<int64_t>(sequence.blocks.size());
  return std::max<int64_t>(0, cache_.blocks_for(sequence.num_computed_max()) - held);
}

// Available blocks, less those set aside for others.
int64_t Scheduler::blocks_available_to(const Sequence& sequence) const {
  int64_t available = cache_.num_available();
  for (const Sequence* other : running_)
    if (other->is_reserved && other != &sequence) available -= blocks_to_end(*other);
  return available;
}

// Blocks that would become available if it were preempted.
int64_t Scheduler::blocks_only_of(const Sequence& sequence) const {
  return std::ranges::count_if(
      sequence.blocks, [&](BlockId block) { return cache_.pool().num_references(block) == 1; });
}

}  // namespace wideep::engine
