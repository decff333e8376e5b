// The engine behind engine.h. Reading order: run_step(), then what it calls, in that order.
#pragma once

#include "engine/draft_policy.h"
#include "engine/engine.h"
#include "engine/generation.h"
#include "engine/inbox.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "kv/kv_cache.h"
#include "model/batch.h"

#include <atomic>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

namespace wideep::engine {

class EngineImpl : public Engine, public kv::KvPort {
 public:
  // `options` are resolved; `cache` has the layout of the model.
  EngineImpl(model::Model& model,
             const tokenizer::Tokenizer* tokenizer,
             const Clock& clock,
             const EngineOptions& options,
             std::unique_ptr<kv::BlockPool> pool);

  Result<SequenceId> submit(Request request, EventSink sink) override;
  void cancel(SequenceId sequence) override;
  void drain() override;
  Status step(ep::AllToAll& all_to_all) override;
  bool has_work() const override;
  void wait_for_work(Duration timeout) override;
  void wake() override;

  void set_waker(std::function<void()> waker) override { inbox_.set_waker(std::move(waker)); }

  void fail_all(const Error& reason) override;
  EngineStats stats() const override;

  int64_t num_unfinished() const override { return num_unfinished_; }

  const EngineOptions& options() const override { return options_; }

  kv::KvPort* kv_port() override { return this; }

  const kv::BlockPool& kv_pool() const override { return cache_.pool(); }

  std::string kv_identity() const override;

  kv::LeaseTable& leases() override { return leases_; }

  void set_kv_source(kv::KvSource* source) override { kv_source_ = source; }

  void pull_ended(kv::PullOutcome outcome) override { inbox_.pull_ended(std::move(outcome)); }

 private:
  Status check(const Request& request) const;
  Status run_step(ep::AllToAll& all_to_all);
  bool drain_inbox();
  Result<ep::StepProgram> open_step(ep::AllToAll& all_to_all);
  void build_batch(const StepPlan& plan);
  void commit(const StepPlan& plan);
  int64_t sample_and_report(const StepPlan& plan, MatrixView<const float> logits);
  Status draft(ep::AllToAll& all_to_all);
  bool wants_guesses();
  void note_decode(const StepPlan& plan, const ep::StepProgram& program, int64_t num_tokens);

  void start(std::unique_ptr<Generation> generation);
  void note_scheduled(const StepPlan& plan);
  Sequence* sample_sequence(const ScheduledRows& rows,
                            int64_t first_row,
                            MatrixView<const float> logits);
  void note_prompt(const Sequence& sequence);
  void note_corrupted();
  void leave_queue(Generation& generation);
  void end_overdue();
  void close(Generation& generation);
  void update_stats();

  // KV transfer: engine_kv.cc.
  Status check_ticket(Sequence& sequence) const;
  void begin_pulls(const StepPlan& plan);
  void end_pull(const kv::PullOutcome& outcome);
  void end_lease(kv::LeaseId lease);
  void grant_leases();
  std::shared_ptr<const api::KvTicket> grant_lease(Sequence& sequence);
  void drop_pull(Sequence& sequence);

  model::Model& model_;
  const tokenizer::Tokenizer* tokenizer_;
  const Clock& clock_;
  const EngineOptions options_;
  std::vector<TokenId> end_tokens_;
  const math::Kernels& kernels_;

  kv::KvCache cache_;
  Scheduler scheduler_;
  Sampler sampler_;
  std::unordered_map<SequenceId, std::unique_ptr<Generation>> generations_;  // all that live
  model::Batch batch_;
  // For the draft layer: the token that follows each row of the batch, and who wants a draft.
  std::vector<TokenId> next_tokens_;
  std::vector<std::pair<Sequence*, int64_t>> draft_rows_;
  DraftPolicy draft_policy_;
  bool wants_guesses_ = false;                    // of this step
  std::optional<DraftPolicy::Step> decode_step_;  // what it was like, if it tells anything
  int64_t rows_expected_ =
      std::numeric_limits<int64_t>::max();  // room of the coming step, at least

  int64_t num_generated_ = 0;  // tokens since the start

  kv::KvSource* kv_source_ = nullptr;
  std::vector<Generation*> leasing_;  // ended in this step, their KV is to be kept
  std::unordered_map<kv::LeaseId, std::vector<BlockId>> leased_;  // block tables of leases

  Inbox inbox_;
  kv::LeaseTable leases_;
  std::atomic<int64_t> next_id_{1};
  std::atomic<int64_t> num_unfinished_{0};
  std::atomic<bool> is_active_{false};  // something to do besides the inbox

  mutable std::mutex stats_mutex_;
  EngineStats stats_;
};

}  // namespace wideep::engine
