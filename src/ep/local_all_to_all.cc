#include "ep/local_all_to_all.h"

#include "base/check.h"
#include "ep/combine.h"

#include <algorithm>

namespace wideep::ep {
namespace {

size_t buffer_bytes(int64_t rows, int64_t row_bytes) {
  return static_cast<size_t>(rows * row_bytes);
}

}  // namespace

LocalAllToAll::LocalAllToAll(ThreadPool& pool,
                             const math::Kernels& kernels,
                             LocalAllToAllOptions options)
    : pool_(pool),
      kernels_(kernels),
      options_(options),
      in_bytes_(math::row_bytes(options.formats.input, options.hidden)),
      out_bytes_(math::row_bytes(options.formats.combine, options.hidden)),
      in_rows_(buffer_bytes(options.tokens_max, in_bytes_)),
      out_rows_(buffer_bytes(options.tokens_max * options.top_k, out_bytes_)),
      wire_rows_(buffer_bytes(pool.num_threads(),
                              math::row_bytes(options.formats.dispatch, options.hidden))),
      decoded_rows_(
          buffer_bytes(pool.num_threads(), math::row_bytes(math::RowFormat::kF32, options.hidden))),
      weights_(static_cast<size_t>(options.tokens_max * options.top_k)),
      first_row_(static_cast<size_t>(options.num_experts + 1)),
      in_pointers_(weights_.size()),
      out_pointers_(weights_.size()),
      load_(options.num_layers, static_cast<int32_t>(options.num_experts), 1) {
  experts_.reserve(static_cast<size_t>(options.num_experts));
  for (size_t pair = 0; pair < weights_.size(); ++pair)
    result_pointers_.push_back(out_rows_.data() + static_cast<int64_t>(pair) * out_bytes_);
}

Result<StepProgram> LocalAllToAll::begin_step(const StepWish& wish) {
  // Nobody to agree with: the wish is the program.
  return StepProgram{.mode = Mode::kLowLatency,
                     .tokens_max = options_.tokens_max,
                     .draft_depth = wish.draft_depth,
                     .anyone_has_work = wish.has_work};
}

Status LocalAllToAll::start_dispatch(LayerId layer,
                                     MatrixView<const float> h,
                                     const Routing& routing) {
  WD_CHECK(handed_out_);
  WD_CHECK(h.rows == routing.num_tokens);
  WD_CHECK(routing.num_tokens <= options_.tokens_max);
  WD_CHECK(routing.top_k == options_.top_k);
  num_tokens_ = routing.num_tokens;
  std::ranges::copy(routing.weights, weights_.begin());
  round_rows(h);
  group_by_expert(routing);
  count(layer);
  handed_out_ = false;
  return {};
}

// What a wire would do: h -> dispatch format -> (f32 ->) input format.
void LocalAllToAll::round_rows(MatrixView<const float> h) {
  const int64_t hidden = options_.hidden;
  const RowFormats& formats = options_.formats;
  const int64_t wire_bytes = math::row_bytes(formats.dispatch, hidden);
  const int64_t decoded_bytes = math::row_bytes(math::RowFormat::kF32, hidden);
  pool_.for_each(h.rows, [&](int64_t token, int thread) {
    std::byte* in = in_rows_.data() + token * in_bytes_;
    const float* row = h.row(token).data();
    if (formats.dispatch == formats.input) {
      kernels_.encode_row(formats.input, row, hidden, in);
      return;
    }
    std::byte* wire = wire_rows_.data() + thread * wire_bytes;
    auto* decoded = reinterpret_cast<float*>(decoded_rows_.data() + thread * decoded_bytes);
    kernels_.encode_row(formats.dispatch, row, hidden, wire);
    kernels_.decode_row(formats.dispatch, wire, hidden, decoded);
    kernels_.encode_row(formats.input, decoded, hidden, in);
  });
}

// A counting sort of the (token, k) pairs by expert.
// Example, top_k = 2, token 0 -> experts 5, 1 and token 1 -> 5, 0: first_row_ = [0, 1, 2, 2, 2, 2,
// 4], rows (1, 1) (0, 1) (0, 0) (1, 0).
void LocalAllToAll::group_by_expert(const Routing& routing) {
  std::ranges::fill(first_row_, 0);
  for (const ExpertId expert : routing.experts) {
    WD_CHECK(index(expert) >= 0);
    WD_CHECK(index(expert) < options_.num_experts);
    ++first_row_[subscript(expert) + 1];
  }
  for (size_t e = 1; e < first_row_.size(); ++e)
    first_row_[e] += first_row_[e - 1];
  // Placing a row advances its expert's begin; afterwards each begin has become its end.
  for (int64_t pair = 0; pair < static_cast<int64_t>(routing.experts.size()); ++pair) {
    const auto expert = subscript(routing.experts[static_cast<size_t>(pair)]);
    const auto row = static_cast<size_t>(first_row_[expert]++);
    in_pointers_[row] = in_rows_.data() + pair / options_.top_k * in_bytes_;
    out_pointers_[row] = out_rows_.data() + pair * out_bytes_;
  }
  experts_.clear();
  size_t begin = 0;
  for (size_t e = 0; e < static_cast<size_t>(options_.num_experts); ++e) {
    const auto end = static_cast<size_t>(first_row_[e]);
    if (end > begin) {
      experts_.push_back({.slot = SlotId{static_cast<int32_t>(e)},
                          .in = std::span(in_pointers_).subspan(begin, end - begin),
                          .out = std::span(out_pointers_).subspan(begin, end - begin)});
    }
    begin = end;
  }
}

void LocalAllToAll::count(LayerId layer) {
  if (index(layer) >= options_.num_layers) return;
  for (const ExpertRows& rows : experts_)
    load_.add_computed(layer, rows.slot, std::ssize(rows.in));
  load_.add_sent(layer, RankId{0}, num_tokens_ * options_.top_k);
}

Result<ExpertBatch> LocalAllToAll::next_experts() {
  if (handed_out_) return ExpertBatch{};
  handed_out_ = true;
  return ExpertBatch{experts_};
}

Status LocalAllToAll::finish(const ExpertBatch& /*batch*/) {
  return {};
}

Status LocalAllToAll::combine(MatrixView<const float> shared, MatrixView<float> x) {
  WD_CHECK(x.rows == num_tokens_);
  add_results({.format = options_.formats.combine,
               .top_k = options_.top_k,
               .rows = result_pointers_,
               .weights = weights_},
              shared, x, kernels_, pool_);
  return {};
}

}  // namespace wideep::ep
