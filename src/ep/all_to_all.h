// The exchange of expert parallelism: rows travel to the ranks that hold their experts, and back.
//
//   start_dispatch(h, routing)  each token's row leaves for the experts it chose
//   while (next_experts())      experts on this rank whose rows are here: compute each out row
//     finish(batch)             those results may travel home
//   combine(shared, x)          x += sum over k of weight * row, in k order, then shared
//
// What makes the tokens equal for every shape of the cluster: a row is rounded to the dispatch
// format even when it never leaves the rank; an expert returns one row per (token, k); the source
// adds weight x row in k order in f32 and the shared expert last.
//
// A rank without tokens takes part with zero rows: others need its experts. Every wait ends: with
// rows, or with kPeerLost / kTimeout naming who is missing. After an error the exchange is dead;
// the step is aborted and a fresh AllToAll (a new epoch) is handed in. Thread: the engine thread
// only. One exchange is in flight at a time.
#pragma once

#include "base/ids.h"
#include "base/matrix.h"
#include "base/result.h"
#include "math/formats.h"

#include <cstdint>
#include <span>

namespace wideep::ep {

// Which experts each token chose and with what weight: [num_tokens][top_k], in router order.
struct Routing {
  int64_t num_tokens = 0;
  int64_t top_k = 0;
  std::span<const ExpertId> experts;
  std::span<const float> weights;
};

// Rows for one expert on this rank. in[i] is a row in the experts' input format (math::row_bytes),
// out[i] is where its result row goes, in the combine format. Where out_is_far[i], it will be
// read from memory, not from this core's cache: best written by Kernels::stream, with a
// stream_fence() at the end.
struct ExpertRows {
  SlotId slot{};
  std::span<const std::byte* const> in;
  std::span<std::byte* const> out;
  std::span<const uint8_t> out_is_far;  // none: none is
};

// Valid until the next call on the AllToAll. No experts: this rank has nothing more to compute in
// this layer.
struct ExpertBatch {
  std::span<const ExpertRows> experts;
};

// What a rank will do in its next step; all ranks run the same program, the maximum over their
// wishes.
struct StepWish {
  int64_t num_tokens = 0;   // rows this rank will bring; 0: none
  bool has_work = false;    // requests it holds; the group sleeps when nobody has any
  int32_t draft_depth = 0;  // tokens to speculate
};

enum class Mode : uint8_t { kLowLatency, kHighThroughput };

struct StepProgram {
  Mode mode = Mode::kLowLatency;
  int64_t tokens_max = 0;  // rows per rank that this step has room for
  int32_t draft_depth = 0;
  bool anyone_has_work = false;
};

// The formats a row has on its way. `input` is what the expert kernels multiply.
struct RowFormats {
  math::RowFormat dispatch = math::RowFormat::kBf16;
  math::RowFormat input = math::RowFormat::kBf16;
  math::RowFormat combine = math::RowFormat::kBf16;  // kF32 or kBf16
};

class AllToAll {
 public:
  virtual ~AllToAll() = default;

  // Opens step t: announces this rank's wish for step t + 1 and returns the program all ranks run
  // in t, the maximum over the wishes of step t - 1. Blocks until those are here (at most the
  // liveness deadline). The first step of an epoch or after a sleep has a fixed default program
  // with room for tokens_max() rows. When nobody has work the step is not run and the group sleeps;
  // the next begin_step whose wish has work wakes it. engine/engine.h tells the whole story.
  virtual Result<StepProgram> begin_step(const StepWish& wish) = 0;

  // h: [num_tokens, hidden], what the experts see. Copies what it needs before it returns.
  virtual Status start_dispatch(LayerId layer,
                                MatrixView<const float> h,
                                const Routing& routing) = 0;
  virtual Result<ExpertBatch> next_experts() = 0;
  virtual Status finish(const ExpertBatch& batch) = 0;
  // x: [num_tokens, hidden], the residual stream; `shared` likewise, or no rows at all if the model
  // has no shared expert: x[t] += (sum_k weights[t][k] * row(t, k)) + shared[t], the sum in f32.
  virtual Status combine(MatrixView<const float> shared, MatrixView<float> x) = 0;

  // Largest num_tokens that start_dispatch takes.
  virtual int64_t tokens_max() const = 0;
};

}  // namespace wideep::ep
