#include "ep/fabric_all_to_all.h"

#include "base/check.h"
#include "base/hash.h"

#include <array>
#include <limits>

namespace wideep::ep {
namespace {

// Everything that must be equal on all ranks for their words to mean the same.
uint64_t config_hash(const ExchangeOptions& options, const Placement& placement) {
  const ExchangeShape& shape = options.shape;
  const std::array<uint64_t, 9> parts{options.config_hash,
                                      placement.hash(),
                                      static_cast<uint64_t>(shape.hidden),
                                      static_cast<uint64_t>(shape.top_k),
                                      static_cast<uint64_t>(shape.tokens_max),
                                      static_cast<uint64_t>(shape.formats.dispatch),
                                      static_cast<uint64_t>(shape.formats.input),
                                      static_cast<uint64_t>(shape.formats.combine),
                                      static_cast<uint64_t>(options.low_latency_tokens_max)};
  return xxh64(std::as_bytes(std::span(parts)));
}

Status validate_all(const fabric::Fabric& fabric,
                    const Placement& placement,
                    const ExchangeOptions& options) {
  WD_TRY(validate(options.shape));
  const fabric::Shape& shape = fabric.shape();
  if (placement.num_ranks() != shape.num_ranks())
    return invalid_argument("placement for {} ranks, the group has {}", placement.num_ranks(),
                            shape.num_ranks());
  if (shape.num_channels < kNumChannels)
    return invalid_argument("fabric with {} channels, {} needed", shape.num_channels, kNumChannels);
  const ExchangeLayout layout(options.shape, shape.node_of);
  if (shape.arena_bytes < layout.arena_bytes())
    return invalid_argument("arenas of {} bytes, {} needed", shape.arena_bytes,
                            layout.arena_bytes());
  if (options.batch_rows_max < 1 || options.chunk_tokens < 1 || options.row_block < 1)
    return invalid_argument("batch_rows_max, chunk_tokens and row_block must be positive");
  if (shape.num_ranks() * layout.entries_max() > std::numeric_limits<int32_t>::max())
    return invalid_argument("{} ranks with {} rows each are too many", shape.num_ranks(),
                            layout.entries_max());
  return {};
}

}  // namespace

Result<std::unique_ptr<FabricAllToAll>> FabricAllToAll::create(fabric::Fabric& fabric,
                                                               const Placement& placement,
                                                               const math::Kernels& kernels,
                                                               ThreadPool& pool,
                                                               const ExchangeOptions& options) {
  WD_TRY(validate_all(fabric, placement, options));
  return std::make_unique<FabricAllToAll>(Checked{}, fabric, placement, kernels, pool, options);
}

FabricAllToAll::FabricAllToAll(Checked,
                               fabric::Fabric& fabric,
                               const Placement& placement,
                               const math::Kernels& kernels,
                               ThreadPool& pool,
                               const ExchangeOptions& options)
    : options_(options),
      layout_(options.shape, fabric.shape().node_of),
      load_(placement.num_layers(), placement.slots_per_rank_max(), placement.num_ranks()),
      step_(fabric, options_, config_hash(options, placement)),
      outgoing_({fabric, placement, kernels, pool, options_, layout_, load_, choice_}),
      incoming_({fabric, placement, kernels, pool, options_, layout_, load_, choice_}),
      next_seq_(options.first_seq) {}

template <typename R>
R FabricAllToAll::remember(R result) {
  if (!result) failure_ = result.error();
  return result;
}

Result<StepProgram> FabricAllToAll::begin_step(const StepWish& wish) {
  if (failure_) return std::unexpected(*failure_);
  WD_CHECK(phase_ == Phase::kNoStep || phase_ == Phase::kReady);
  Result<StepProgram> program = remember(step_.begin(wish));
  if (!program) return program;
  program_ = *program;
  phase_ = program_.anyone_has_work ? Phase::kReady : Phase::kNoStep;
  return program;
}

// Nothing has been sent yet: a rank that brings too much fails alone, and the others time out
// naming it.
Status FabricAllToAll::check(MatrixView<const float> h, const Routing& routing) const {
  WD_CHECK(h.cols == options_.shape.hidden);
  WD_CHECK(routing.num_tokens == h.rows);
  WD_CHECK(routing.top_k == options_.shape.top_k);
  WD_CHECK(std::ssize(routing.experts) == h.rows * routing.top_k);
  WD_CHECK(routing.weights.size() == routing.experts.size());
  if (h.rows > program_.tokens_max)
    return error(ErrorCode::kExhausted, "{} rows, the step has room for {}", h.rows,
                 program_.tokens_max);
  return {};
}

Status FabricAllToAll::start_dispatch(LayerId layer,
                                      MatrixView<const float> h,
                                      const Routing& routing) {
  if (failure_) return std::unexpected(*failure_);
  WD_CHECK(phase_ == Phase::kReady);
  WD_TRY(remember(check(h, routing)));
  const ExchangeId id{.seq = next_seq_++, .layer = layer, .program = step_.program_hash()};
  incoming_.open(id);
  phase_ = Phase::kDispatched;
  const int64_t chunk =
      program_.mode == Mode::kLowLatency ? options_.shape.tokens_max : options_.chunk_tokens;
  return remember(outgoing_.dispatch(id, h, routing, chunk));
}

Result<ExpertBatch> FabricAllToAll::next_experts() {
  if (failure_) return std::unexpected(*failure_);
  if (phase_ == Phase::kComputed) return ExpertBatch{};
  WD_CHECK(phase_ == Phase::kDispatched);
  const int64_t at_least = program_.mode == Mode::kLowLatency
                               ? std::numeric_limits<int64_t>::max()  // all rows first
                               : options_.row_block;
  Result<ExpertBatch> batch = remember(incoming_.next(at_least, step_.deadline()));
  if (batch && batch->experts.empty()) phase_ = Phase::kComputed;
  return batch;
}

Status FabricAllToAll::finish(const ExpertBatch&) {
  if (failure_) return std::unexpected(*failure_);
  WD_CHECK(phase_ == Phase::kDispatched);
  return remember(incoming_.finish());
}

Status FabricAllToAll::combine(MatrixView<const float> shared, MatrixView<float> x) {
  if (failure_) return std::unexpected(*failure_);
  WD_CHECK(phase_ == Phase::kComputed);
  phase_ = Phase::kReady;
  return remember(outgoing_.combine(shared, x, step_.deadline()));
}

Status FabricAllToAll::sleep_until(TimePoint until) {
  if (failure_) return std::unexpected(*failure_);
  return remember(step_.sleep_until(until));
}

}  // namespace wideep::ep
