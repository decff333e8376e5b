#include "engine/engine_impl.h"

#include "base/check.h"

#include <algorithm>
#include <utility>

namespace wideep::engine {

EngineImpl::EngineImpl(model::Model& model,
                       const tokenizer::Tokenizer* tokenizer,
                       const Clock& clock,
                       const EngineOptions& options,
                       std::unique_ptr<kv::BlockPool> pool)
    : model_(model),
      tokenizer_(tokenizer),
      clock_(clock),
      options_(options),
      kernels_(math::kernels(model.numeric().isa)),
      cache_(std::move(pool),
             options.enable_prefix_caching ? kv::PrefixCaching::kOn : kv::PrefixCaching::kOff),
      scheduler_(cache_,
                 {.max_num_seqs = options.max_num_seqs,
                  .max_num_batched_tokens = options.max_num_batched_tokens,
                  .draft_depth = static_cast<int32_t>(options.num_speculative_tokens)}),
      sampler_(kernels_, model.config().vocab_size),
      inbox_({.requests_max = options.max_num_queued_reqs,
              .tokens_max = options.max_num_queued_tokens}),
      leases_(clock, options.leases, [this](kv::LeaseId lease) { inbox_.lease_ended(lease); }) {
  const auto add_end_token = [&](TokenId token) {
    if (index(token) >= 0 && index(token) < model.config().vocab_size) end_tokens_.push_back(token);
  };
  std::ranges::for_each(model.config().eos_tokens, add_end_token);
  std::ranges::for_each(options.end_tokens, add_end_token);
  if (tokenizer != nullptr && tokenizer->eos_id()) add_end_token(*tokenizer->eos_id());
  update_stats();
}

Result<SequenceId> EngineImpl::submit(Request request, EventSink sink) {
  WD_TRY(check(request));
  const auto id = SequenceId{next_id_.fetch_add(1, std::memory_order_relaxed)};
  const model::NumericConfig& numeric = model_.numeric();
  const BlockNaming naming{
      .root = api::block_hash_root(model_.fingerprint(), numeric.describe(), request.cache_salt),
      .by_role = numeric.attention_form == model::AttentionForm::kByRole};
  auto sequence =
      std::make_unique<Sequence>(id, std::move(request), options_.max_model_len, naming);
  WD_TRY(check_ticket(*sequence));
  WD_ASSIGN_OR_RETURN(
      std::unique_ptr<Generation> generation,
      Generation::create(std::move(sequence), tokenizer_, end_tokens_, std::move(sink)));
  // Names its blocks here, so that the engine thread does not have to.
  generation->sequence().block_names(options_.block_size);
  generation->timing.queued = clock_.now();
  const bool can_pull = generation->sequence().can_pull;
  const kv::TicketPtr ticket = generation->sequence().request().ticket;
  if (can_pull) kv_source_->hold(ticket);
  ++num_unfinished_;  // before the engine thread can count it down
  if (Status submitted = inbox_.submit(std::move(generation)); !submitted) {
    --num_unfinished_;
    if (can_pull) kv_source_->let_go(ticket);
    return std::unexpected(std::move(submitted).error());
  }
  return id;
}

Status EngineImpl::check(const Request& request) const {
  const int64_t vocab_size = model_.config().vocab_size;
  const auto num_prompt = static_cast<int64_t>(request.prompt_tokens.size());
  const StopParams& stop = request.stop;
  if (num_prompt == 0) return invalid_argument("the prompt has no tokens");
  if (num_prompt >= options_.max_model_len)
    return invalid_argument("the prompt has {} tokens, the context holds {} with at least one new",
                            num_prompt, options_.max_model_len);
  if (stop.max_tokens < 1) return invalid_argument("max_tokens is {}", stop.max_tokens);
  if (stop.min_tokens < 0 || stop.min_tokens > stop.max_tokens)
    return invalid_argument("min_tokens is {}, allowed is 0 to max_tokens ({})", stop.min_tokens,
                            stop.max_tokens);
  for (const auto* tokens : {&request.prompt_tokens, &request.generated_prefix, &stop.stop_tokens})
    for (const TokenId token : *tokens)
      if (index(token) < 0 || index(token) >= vocab_size)
        return invalid_argument("token {} is not in the vocabulary of {}", index(token),
                                vocab_size);
  return check_sampling(request.sampling, vocab_size);
}

void EngineImpl::cancel(SequenceId sequence) {
  inbox_.cancel(sequence);
}

void EngineImpl::drain() {
  inbox_.close();
}

Status EngineImpl::step(ep::AllToAll& all_to_all) {
  const TimePoint begin = clock_.now();
  decode_step_.reset();
  {
    const std::scoped_lock lock(stats_mutex_);
    stats_.last_step_tokens = stats_.last_step_prefill_tokens = 0;  // unless rows are scheduled
  }
  const Status status = run_step(all_to_all);
  grant_leases();
  const TimePoint end = clock_.now();
  if (status && decode_step_) {
    decode_step_->duration = end - begin;
    draft_policy_.observe(*decode_step_);
  }
  {
    const std::scoped_lock lock(stats_mutex_);
    ++(status ? stats_.num_steps : stats_.num_failed_steps);
    stats_.last_step_start = begin;
    stats_.last_step_end = end;
  }
  update_stats();
  return status;
}

Status EngineImpl::run_step(ep::AllToAll& all_to_all) {
  // News that give a sleeping group nothing to do do not wake it.
  if (!drain_inbox()) return {};
  WD_ASSIGN_OR_RETURN(const ep::StepProgram program, open_step(all_to_all));
  if (!program.anyone_has_work) return {};
  const StepPlan plan = scheduler_.next(program.tokens_max);
  begin_pulls(plan);
  build_batch(plan);
  WD_ASSIGN_OR_RETURN(const MatrixView<const float> logits, model_.forward(batch_, all_to_all));
  commit(plan);
  const int64_t num_tokens = sample_and_report(plan, logits);
  note_decode(plan, program, num_tokens);
  return program.draft_depth > 0 ? draft(all_to_all) : Status();
}

// False: the group sleeps, and may go on.
bool EngineImpl::drain_inbox() {
  const bool was_active = is_active_.exchange(true);  // until we know: work on its way is work
  Inbox::Mail mail = inbox_.drain();
  for (std::unique_ptr<Generation>& generation : mail.submitted)
    start(std::move(generation));
  for (const SequenceId id : mail.cancelled) {
    const auto it = generations_.find(id);
    if (it == generations_.end()) continue;
    it->second->end(FinishReason::kAbort);
    close(*it->second);
  }
  std::ranges::for_each(mail.leases, [&](kv::LeaseId lease) { end_lease(lease); });
  std::ranges::for_each(mail.pulls, [&](const kv::PullOutcome& pull) { end_pull(pull); });
  end_overdue();
  is_active_ = was_active || mail.woken || scheduler_.has_work();
  return is_active_;
}

void EngineImpl::start(std::unique_ptr<Generation> generation) {
  const SequenceId id = generation->sequence().id();
  Generation& started = *generations_.emplace(id, std::move(generation)).first->second;
  scheduler_.add(started.take_sequence());
  if (!started.ended()) return;
  started.end(*started.ended());  // its prefix was all there is
  close(started);
}

// Tells the group what this rank wishes for the next step, and learns the program of this one.
Result<ep::StepProgram> EngineImpl::open_step(ep::AllToAll& all_to_all) {
  wants_guesses_ = wants_guesses();
  const ep::StepWish wish = scheduler_.wish(
      rows_expected_, wants_guesses_ ? Scheduler::Guesses::kWanted : Scheduler::Guesses::kNone);
  WD_ASSIGN_OR_RETURN(const ep::StepProgram program, all_to_all.begin_step(wish));
  // The next step has room for what was announced for it, a first step for all that is possible.
  rows_expected_ = program.anyone_has_work ? std::min(wish.num_tokens, all_to_all.tokens_max())
                                           : all_to_all.tokens_max();
  is_active_ = program.anyone_has_work || scheduler_.has_work();
  return program;
}

void EngineImpl::build_batch(const StepPlan& plan) {
  batch_.tokens.clear();
  batch_.logit_rows.clear();
  batch_.sequences.resize(plan.sequences.size());  // keeps the memory of the last step
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const ScheduledRows& scheduled = plan.sequences[i];
    const Sequence* sequence = scheduled.sequence;
    model::SequenceRows& rows = batch_.sequences[i];
    rows.first_row = batch_.num_rows();
    rows.count = scheduled.num_rows();
    rows.position = sequence->num_computed;
    rows.num_prompt = std::clamp<int64_t>(sequence->num_prompt() - rows.position, 0, rows.count);
    const auto tokens = sequence->tokens().subspan(rows.position, scheduled.count);
    const auto drafts = std::span(sequence->drafts).first(scheduled.num_drafts);
    batch_.tokens.insert(batch_.tokens.end(), tokens.begin(), tokens.end());
    batch_.tokens.insert(batch_.tokens.end(), drafts.begin(), drafts.end());
    if (scheduled.samples())
      for (int64_t row = scheduled.count - 1; row < rows.count; ++row)
        batch_.logit_rows.push_back(rows.first_row + row);

    const int64_t num_blocks = cache_.blocks_for(rows.position + rows.count);
    rows.block_data.resize(cache_.pool().layout().groups.size());
    for (size_t group = 0; group < rows.block_data.size(); ++group) {
      rows.block_data[group].clear();
      for (int64_t block = 0; block < num_blocks; ++block)
        rows.block_data[group].push_back(
            cache_.pool().memory(group, sequence->blocks[block]).data());
    }
  }
  note_scheduled(plan);
}

void EngineImpl::note_scheduled(const StepPlan& plan) {
  const TimePoint now = clock_.now();
  for (const ScheduledRows& rows : plan.sequences) {
    Generation& generation = *generations_.at(rows.sequence->id());
    if (generation.timing.scheduled == TimePoint{}) generation.timing.scheduled = now;
    leave_queue(generation);
  }
  const std::scoped_lock lock(stats_mutex_);
  stats_.last_step_tokens = plan.num_rows;
  stats_.last_step_prefill_tokens = plan.num_prefill_rows;
}

// The drafts' rows are in the blocks too, but count only when they turn out right.
void EngineImpl::commit(const StepPlan& plan) {
  // Within a sequence the next row's token follows; behind the last row it is not known yet.
  next_tokens_.assign(batch_.tokens.begin() + (batch_.tokens.empty() ? 0 : 1), batch_.tokens.end());
  next_tokens_.resize(batch_.tokens.size());
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const auto& [sequence, count, num_drafts] = plan.sequences[i];
    scheduler_.commit(*sequence, count);
    if (sequence->num_pending() == 0) continue;
    const model::SequenceRows& rows = batch_.sequences[i];  // its prompt goes on
    next_tokens_[rows.first_row + rows.count - 1] = sequence->tokens()[sequence->num_computed];
  }
}

// Every sequence whose last token has just been computed gets the next one, and one more for each
// draft that was right. Returns how many tokens that were.
int64_t EngineImpl::sample_and_report(const StepPlan& plan, MatrixView<const float> logits) {
  draft_rows_.clear();
  int64_t row = 0;
  const int64_t num_before = num_generated_;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const ScheduledRows& rows = plan.sequences[i];
    if (rows.sequence->num_pending() > 0) continue;
    const model::SequenceRows& batched = batch_.sequences[i];
    const int64_t first_row = batched.first_row + rows.count - 1;
    Sequence* sequence = sample_sequence(rows, first_row, logits.slice(row, 1 + rows.num_drafts));
    row += 1 + rows.num_drafts;
    // It has one pending token; the row before that one guesses what follows it.
    if (sequence != nullptr && wants_guesses_)
      draft_rows_.emplace_back(sequence,
                               batched.first_row + sequence->num_computed - 1 - batched.position);
  }
  WD_CHECK(row == logits.rows);
  return num_generated_ - num_before;
}

// `logits`: of the sequence's last token and of each draft behind it; the first of them is row
// `first_row` of the batch. Returns the sequence if it goes on.
Sequence* EngineImpl::sample_sequence(const ScheduledRows& rows,
                                      int64_t first_row,
                                      MatrixView<const float> logits) {
  Sequence& sequence = *rows.sequence;
  Generation& generation = *generations_.at(sequence.id());
  const std::vector<TokenId> drafts = std::exchange(sequence.drafts, {});
  const bool is_first = generation.timing.first_token == TimePoint{};
  const TimePoint now = clock_.now();
  int64_t num_sampled = 0;
  bool has_ended = false;
  while (!has_ended) {
    auto token = sampler_.sample(logits.row(num_sampled), generation.next());
    if (!token) {
      generation.fail(token.error(), /*retryable=*/false);
      if (token.error().code == ErrorCode::kDataLoss) note_corrupted();
      has_ended = true;
      break;
    }
    const TokenId id = token->token;
    next_tokens_[first_row + num_sampled] = id;
    has_ended = generation.accept(*std::move(token), now);
    const bool was_guessed = num_sampled < rows.num_drafts && drafts[num_sampled] == id;
    ++num_sampled;
    if (!was_guessed) break;
    if (!has_ended) scheduler_.commit(sequence, 1);
  }
  if (is_first) note_prompt(sequence);
  if (generation.has_unreported_end())
    leasing_.push_back(&generation);  // when the step has written all its rows
  else if (has_ended)
    close(generation);
  num_generated_ += num_sampled;

  const std::scoped_lock lock(stats_mutex_);
  stats_.generated_tokens += num_sampled;
  stats_.num_drafts += rows.num_drafts > 0 ? 1 : 0;
  stats_.num_draft_tokens += rows.num_drafts;
  stats_.num_accepted_tokens += std::max<int64_t>(0, num_sampled - 1);
  return has_ended ? nullptr : &sequence;
}

void EngineImpl::note_prompt(const Sequence& sequence) {
  const std::scoped_lock lock(stats_mutex_);
  stats_.prompt_tokens += sequence.num_prompt();
  stats_.prompt_tokens_cached +=
      std::clamp<int64_t>(sequence.cached_tokens, 0, sequence.num_prompt());
  stats_.prompt_tokens_pulled += sequence.pulled_tokens;
}

void EngineImpl::note_corrupted() {
  const std::scoped_lock lock(stats_mutex_);
  ++stats_.num_corrupted;
}

bool EngineImpl::wants_guesses() {
  if (options_.num_speculative_tokens == 0 || scheduler_.empty()) return false;
  return !options_.adapt_speculation || draft_policy_.wants_drafts(scheduler_.num_running());
}

// Steps with prompts, and the first ones after a change of mind, tell nothing about guessing.
void EngineImpl::note_decode(const StepPlan& plan,
                             const ep::StepProgram& program,
                             int64_t num_tokens) {
  const auto num_sequences = static_cast<int64_t>(plan.sequences.size());
  const int64_t num_drafted =
      std::ranges::count_if(plan.sequences, [](const auto& rows) { return rows.num_drafts > 0; });
  const bool drafts_all = program.draft_depth > 0 && num_drafted == num_sequences;
  const bool drafts_none = !wants_guesses_ && num_drafted == 0;
  if (num_sequences == 0 || plan.num_prefill_rows > 0 || drafts_all == drafts_none) return;
  decode_step_ = {.num_sequences = num_sequences,
                  .with_drafts = drafts_all,
                  .duration = {},
                  .num_tokens = num_tokens};
}

// Runs the draft layer on the rows of the step, so that its own cache stays complete, and keeps its
// guesses for the sequences that decode.
Status EngineImpl::draft(ep::AllToAll& all_to_all) {
  batch_.tokens = next_tokens_;
  batch_.logit_rows.clear();
  for (const auto& [sequence, row] : draft_rows_)
    batch_.logit_rows.push_back(row);
  WD_ASSIGN_OR_RETURN(const MatrixView<const float> logits, model_.draft(batch_, all_to_all));
  for (size_t i = 0; i < draft_rows_.size(); ++i) {
    float max = 0;
    const int64_t best =
        kernels_.argmax(logits.row(static_cast<int64_t>(i)).data(), logits.cols, &max);
    draft_rows_[i].first->drafts = {TokenId{static_cast<int32_t>(best)}};
  }
  return {};
}

// Its blocks are free, its place in the queue too.
void EngineImpl::close(Generation& generation) {
  Sequence& sequence = generation.sequence();
  const SequenceId id = sequence.id();
  leave_queue(generation);
  drop_pull(sequence);
  inbox_.forget(id);
  scheduler_.remove(sequence);
  generations_.erase(id);
  --num_unfinished_;
}

void EngineImpl::leave_queue(Generation& generation) {
  if (!std::exchange(generation.is_queued, false)) return;
  inbox_.leave_queue(generation.sequence().num_tokens());
}

void EngineImpl::end_overdue() {
  if (options_.queue_timeout <= Duration::zero()) return;
  const TimePoint oldest = clock_.now() - options_.queue_timeout;
  std::vector<Generation*> overdue;
  for (const auto& [id, generation] : generations_)
    if (generation->is_queued && generation->timing.queued < oldest)
      overdue.push_back(generation.get());
  for (Generation* generation : overdue) {
    generation->fail({ErrorCode::kUnavailable, "waited too long for a place in the engine"},
                     /*retryable=*/true);
    close(*generation);
  }
}

void EngineImpl::fail_all(const Error& reason) {
  static_cast<void>(drain_inbox());
  for (Sequence* sequence : scheduler_.all()) {
    Generation& generation = *generations_.at(sequence->id());
    generation.fail(reason, /*retryable=*/true);
    close(generation);
  }
  is_active_ = false;
  update_stats();
}

bool EngineImpl::has_work() const {
  return is_active_ || inbox_.has_mail();
}

void EngineImpl::wait_for_work(Duration timeout) {
  if (!is_active_) inbox_.wait(timeout);
}

void EngineImpl::wake() {
  inbox_.wake();
}

void EngineImpl::update_stats() {
  const std::scoped_lock lock(stats_mutex_);
  stats_.expert_bytes_read = model_.expert_bytes_read();
  stats_.num_running = scheduler_.num_running();
  stats_.num_kv_blocks = cache_.num_blocks();
  stats_.num_kv_blocks_free = cache_.num_available();
  stats_.kv_cache_usage =
      1.0 - static_cast<double>(cache_.num_available()) / static_cast<double>(cache_.num_blocks());
  stats_.num_preemptions = scheduler_.stats().num_preemptions;
  stats_.prefix_cache_queries = scheduler_.stats().prefix_cache_queries;
  stats_.prefix_cache_hits = scheduler_.stats().prefix_cache_hits;
  stats_.external_cache_queries = scheduler_.stats().external_queries;
  stats_.external_cache_hits = scheduler_.stats().external_hits;
  stats_.num_waiting = scheduler_.num_waiting();
  stats_.num_deferred = scheduler_.num_deferred();
}

EngineStats EngineImpl::stats() const {
  EngineStats stats;
  {
    const std::scoped_lock lock(stats_mutex_);
    stats = stats_;
  }
  stats.num_queued_tokens = inbox_.num_queued_tokens();
  stats.num_waiting += inbox_.num_submitted();
  return stats;
}

}  // namespace wideep::engine
