#include "ep/reference_all_to_all.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

namespace wideep::ep {

Status ReferenceBoard::meet() {
  std::unique_lock lock(mutex_);
  const uint64_t round = round_;
  if (++num_here_ == std::ssize(pinned_)) {
    num_here_ = 0;
    ++round_;
    all_here_.notify_all();
    return {};
  }
  if (all_here_.wait_for(lock, std::chrono::minutes{1}, [&] { return round_ != round; })) return {};
  return error(ErrorCode::kTimeout, "reference exchange: {} of {} ranks came", num_here_,
               pinned_.size());
}

Result<StepProgram> ReferenceAllToAll::begin_step(const StepWish& wish) {
  WD_TRY(board_.meet());  // the last step's wishes are all there
  StepProgram program;
  for (const auto& pinned : board_.pinned_) {
    program.tokens_max = std::max(program.tokens_max, pinned.wish.num_tokens);
    program.draft_depth = std::max(program.draft_depth, pinned.wish.draft_depth);
    program.anyone_has_work |= pinned.wish.has_work;
  }
  if (is_first_) program = {.tokens_max = tokens_max(), .anyone_has_work = true};
  is_first_ = !program.anyone_has_work;
  WD_TRY(board_.meet());  // all have read them
  own().wish = wish;
  return program;
}

Status ReferenceAllToAll::start_dispatch(LayerId layer,
                                         MatrixView<const float> h,
                                         const Routing& routing) {
  layer_ = layer;
  computed_ = false;
  weights_.assign(routing.weights.begin(), routing.weights.end());
  const auto dispatch_bytes = static_cast<size_t>(row_bytes(board_.formats_.dispatch, h.cols));
  const auto combine_bytes = static_cast<size_t>(row_bytes(board_.formats_.combine, h.cols));
  own() = {.wish = own().wish, .hidden = h.cols};
  own().experts.assign(routing.experts.begin(), routing.experts.end());
  for (int64_t t = 0; t < h.rows; ++t) {
    own().rows.emplace_back(dispatch_bytes);
    math::reference_encode_row(board_.formats_.dispatch, h.row(t), own().rows.back().data());
    for (int64_t k = 0; k < routing.top_k; ++k)
      own().out.emplace_back(combine_bytes);
  }
  return board_.meet();
}

Result<ExpertBatch> ReferenceAllToAll::next_experts() {
  if (computed_) return ExpertBatch{};
  const LayerPlacement& placement = board_.placement_.layer(layer_);
  const auto slots = static_cast<size_t>(placement.slots_per_rank());
  inputs_.clear();
  experts_.clear();
  in_.assign(slots, {});
  out_.assign(slots, {});
  for (auto& source : board_.pinned_) {
    for (size_t i = 0; i < source.experts.size(); ++i) {
      const SlotAddress home = placement.replicas(source.experts[i]).front();
      if (home.rank != rank_) continue;
      const size_t top_k = source.experts.size() / source.rows.size();
      std::vector<float> row(static_cast<size_t>(source.hidden));
      math::reference_decode_row(board_.formats_.dispatch, source.rows[i / top_k].data(), row);
      inputs_.emplace_back(static_cast<size_t>(row_bytes(board_.formats_.input, source.hidden)));
      if (board_.formats_.input == board_.formats_.dispatch) {
        std::ranges::copy(source.rows[i / top_k], inputs_.back().data());
      } else {
        math::reference_encode_row(board_.formats_.input, row, inputs_.back().data());
      }
      in_[subscript(home.slot)].push_back(inputs_.back().data());
      out_[subscript(home.slot)].push_back(source.out[i].data());
    }
  }
  for (size_t s = 0; s < slots; ++s)
    if (!in_[s].empty()) experts_.push_back({SlotId{static_cast<int32_t>(s)}, in_[s], out_[s]});
  computed_ = true;
  return ExpertBatch{experts_};
}

Status ReferenceAllToAll::finish(const ExpertBatch&) {
  return {};
}

Status ReferenceAllToAll::combine(MatrixView<const float> shared, MatrixView<float> x) {
  WD_TRY(board_.meet());  // every rank has computed
  const size_t top_k = x.rows == 0 ? 0 : weights_.size() / static_cast<size_t>(x.rows);
  std::vector<float> row(static_cast<size_t>(x.cols));
  for (int64_t t = 0; t < x.rows; ++t) {
    std::vector<float> sum(row.size());
    for (size_t k = 0; k < top_k; ++k) {
      const size_t i = static_cast<size_t>(t) * top_k + k;
      math::reference_decode_row(board_.formats_.combine, own().out[i].data(), row);
      for (size_t c = 0; c < row.size(); ++c)
        sum[c] = std::fma(weights_[i], row[c], sum[c]);
    }
    for (size_t c = 0; c < row.size(); ++c) {
      if (shared.rows > 0) sum[c] += shared(t, static_cast<int64_t>(c));
      x(t, static_cast<int64_t>(c)) += sum[c];
    }
  }
  return board_.meet();  // nobody overwrites what others still read
}

}  // namespace wideep::ep
