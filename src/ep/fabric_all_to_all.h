// The exchange over a fabric: who sends what when, and why nothing is overwritten too early.
//
// One exchange (one MoE layer), number `seq`, between source s and expert rank d:
//
//   s: encodes its rows into its own arena; to other nodes they go once per node, into regions;
//      writes lists of entries {token, slot, k} into the arena of every d that shall compute some;
//      tells every rank: dispatch word {seq, entries so far, entries in all, program, layer}.
//   d: reads rows in place and hands them to its experts; the result of (token, k) goes straight to
//      s's results[token][k]; when all of s's are there: combine word {seq, rows returned}.
//   s: when every rank's combine word is here, x += sum over k of weight * results[token][k].
//
// Words go to every rank, also with zero entries: they double as the barrier of the proof below.
// Low latency (decode): one dispatch word per rank, one batch of experts. High throughput
// (prefill): rows leave in chunks, the word's count grows, and an expert starts when all its rows
// are here or at least `row_block` of them, so that its weights are read at most
// ceil(rows / row_block) times.
//
// Nothing is overwritten while it is read. Let C(d, s, n) be d's combine word of exchange n to s.
//   1. d sends C(d, s, n) after it has read all of s's entries and rows of n and written all their
//      results: from then on d touches neither.
//   2. s ends combine(n) after C(d, s, n) from every d, and starts n + 1 after that. So when s
//      writes rows, lists, regions or dispatch words of n + 1, every d has done with those of n.
//   3. d writes results of n + 1 to s after it has seen s's dispatch word of n + 1, which s sends
//      after combine(n), when it has read all results and combine words of n. So d's results and
//      C(d, s, n + 1) overwrite nothing unread.
// Hence one buffer does for one exchange in flight. (Two by turns would let a second micro-batch
// start n + 1 before combine(n); measured, they cost up to a quarter of the time, because the
// caches hold half as much of what comes again.)
//
// Sequence numbers are 64 bits and compared by difference, so they may wrap. Thread: the engine
// thread, except wake(), is_open() and load(). After an error every call returns that error: the
// step is aborted and a new epoch brings a new exchange.
#pragma once

#include "ep/all_to_all.h"
#include "ep/exchange.h"
#include "ep/expert_load.h"
#include "ep/incoming.h"
#include "ep/outgoing.h"
#include "ep/step_agreement.h"

#include <memory>
#include <optional>

namespace wideep::ep {

class FabricAllToAll final : public AllToAll {
  struct Checked {};  // what only create() can hand in

 public:
  // Borrows all but the options; one per epoch. The fabric needs kNumChannels and arenas of
  // ExchangeLayout(options.shape, node_of).arena_bytes().
  static Result<std::unique_ptr<FabricAllToAll>> create(fabric::Fabric& fabric,
                                                        const Placement& placement,
                                                        const math::Kernels& kernels,
                                                        ThreadPool& pool,
                                                        const ExchangeOptions& options);
  FabricAllToAll(Checked checked,
                 fabric::Fabric& fabric,
                 const Placement& placement,
                 const math::Kernels& kernels,
                 ThreadPool& pool,
                 const ExchangeOptions& options);

  Result<StepProgram> begin_step(const StepWish& wish) override;
  Status start_dispatch(LayerId layer, MatrixView<const float> h, const Routing& routing) override;
  Result<ExpertBatch> next_experts() override;
  Status finish(const ExpertBatch& batch) override;
  Status combine(MatrixView<const float> shared, MatrixView<float> x) override;

  int64_t tokens_max() const override { return options_.shape.tokens_max; }

  // While the group sleeps: blocks until another rank has opened a step, wake() was called, or
  // `until`. kPeerLost as everywhere.
  Status sleep_until(TimePoint until);

  // Ends a sleep, the present or the next. Any thread.
  void wake() { step_.wake(); }

  // Another rank has opened the step that this rank would begin next. Any thread.
  bool is_open() const { return step_.is_open(); }

  const ExpertLoad& load() const { return load_; }

 private:
  enum class Phase { kNoStep, kReady, kDispatched, kComputed };

  Status check(MatrixView<const float> h, const Routing& routing) const;
  // Passes a result on; an error is remembered.
  template <typename R>
  R remember(R result);

  const ExchangeOptions options_;
  const ExchangeLayout layout_;
  ExpertLoad load_;
  StreamChoice choice_;
  StepAgreement step_;
  Outgoing outgoing_;
  Incoming incoming_;
  StepProgram program_;
  Phase phase_ = Phase::kNoStep;
  uint64_t next_seq_;
  std::optional<Error> failure_;
};

}  // namespace wideep::ep
