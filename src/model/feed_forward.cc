#include "model/feed_forward.h"

#include "base/check.h"

#include <algorithm>

namespace wideep::model {
namespace {

int64_t widest_dense_inner(const ModelConfig& config) {
  return std::max(config.intermediate_size, config.shared_intermediate_size());
}

}  // namespace

FfnScratch::FfnScratch(const Compute& compute_in,
                       const ModelConfig& config,
                       const ep::RowFormats& formats,
                       int64_t expert_rows_max_in)
    : compute(compute_in),
      expert_rows_max(expert_rows_max_in),
      dense(compute_in.pool,
            compute_in.kernels,
            math::RowFormat::kF32,
            compute_in.rows_max,
            widest_dense_inner(config),
            compute_in.precision),
      experts(compute_in.pool,
              compute_in.kernels,
              formats.combine,
              expert_rows_max_in,
              config.moe_intermediate_size,
              compute_in.precision),
      in(static_cast<size_t>(compute_in.rows_max *
                             math::row_bytes(math::RowFormat::kF32, config.hidden_size))),
      out(compute_in.rows_max, config.hidden_size),
      in_pointers(static_cast<size_t>(compute_in.rows_max)),
      out_pointers(static_cast<size_t>(compute_in.rows_max)) {
  groups.reserve(static_cast<size_t>(config.num_experts()));
}

Status DenseFfn::forward(Step& step,
                         MatrixView<const float> h,
                         MatrixView<float> x,
                         ep::AllToAll& /*all_to_all*/) {
  const MatrixView<const float> out = apply(h);
  s_.compute.for_rows(h.rows, [&](int64_t r) {
    s_.compute.kernels.add(out.row(r).data(), out.cols, x.row(r).data());
  });
  step.lap(Phase::kDense);
  return {};
}

MatrixView<const float> DenseFfn::apply(MatrixView<const float> h) {
  const MatrixView<float> out = s_.out.view().slice(0, h.rows);
  if (h.rows == 0) return out;
  const math::RowFormat format = math::input_format(w_.gate_up.format, s_.compute.precision);
  const int64_t row_bytes = math::row_bytes(format, h.cols);
  s_.compute.for_rows(h.rows, [&](int64_t r) {
    std::byte* row = s_.in.data() + r * row_bytes;
    s_.compute.kernels.encode_row(format, h.row(r).data(), h.cols, row);
    s_.in_pointers[static_cast<size_t>(r)] = row;
    s_.out_pointers[static_cast<size_t>(r)] = reinterpret_cast<std::byte*>(out.row(r).data());
  });
  const auto count = static_cast<size_t>(h.rows);
  const math::FfnGroup group{.weights = &w_,
                             .in = std::span(s_.in_pointers).first(count),
                             .out = std::span(s_.out_pointers).first(count)};
  s_.dense.forward(std::span(&group, 1));
  return out;
}

MoeLayer::MoeLayer(const MoeWeights& weights,
                   LayerId layer,
                   RouterScratch& router,
                   FfnScratch& scratch)
    : w_(weights), layer_(layer), router_(weights, router), s_(scratch) {
  if (w_.shared) shared_.emplace(*w_.shared, scratch);
}

// Step 1, attention, has been (DecoderModel::run_layer); h is what every expert of a token sees.
Status MoeLayer::forward(Step& step,
                         MatrixView<const float> h,
                         MatrixView<float> x,
                         ep::AllToAll& all_to_all) {
  const ep::Routing routing = route(step, h);                  // 2. each token picks its experts
  WD_TRY(all_to_all.start_dispatch(layer_, h, routing));       // 3. its row leaves for them
  const MatrixView<const float> shared = run_shared(step, h);  //    local work while rows travel
  while (true) {
    WD_ASSIGN_OR_RETURN(const ep::ExpertBatch batch, all_to_all.next_experts());
    if (batch.experts.empty()) break;
    run_experts(step, batch);  // 4. experts run on what came in
    WD_TRY(all_to_all.finish(batch));
  }
  WD_TRY(all_to_all.combine(shared, x));  // 5. results come home, in k order
  step.lap(Phase::kCombine);
  return {};
}

ep::Routing MoeLayer::route(Step& step, MatrixView<const float> h) {
  const ep::Routing routing = router_.route(h);
  observe(step, routing);
  step.lap(Phase::kRouter);
  return routing;
}

// No rows at all if the model has no shared expert.
MatrixView<const float> MoeLayer::run_shared(Step& step, MatrixView<const float> h) {
  step.lap(Phase::kDispatch);
  if (!shared_) return {};
  const MatrixView<const float> out = shared_->apply(h);
  step.lap(Phase::kShared);
  return out;
}

// All experts of a batch in one call; a batch of more rows than there is scratch for in several.
void MoeLayer::run_experts(Step& step, const ep::ExpertBatch& batch) {
  step.lap(Phase::kDispatch);
  int64_t num_rows = 0;
  s_.groups.clear();
  const auto run = [&] {
    if (!s_.groups.empty()) s_.experts.forward(s_.groups);
    s_.groups.clear();
    num_rows = 0;
  };
  for (const ep::ExpertRows& rows : batch.experts) {
    const auto slot = subscript(rows.slot);
    WD_CHECK(slot < w_.slots.size());
    for (size_t begin = 0; begin < rows.in.size();) {
      if (num_rows == s_.expert_rows_max) run();
      const size_t room = static_cast<size_t>(s_.expert_rows_max - num_rows);
      const size_t count = std::min(rows.in.size() - begin, room);
      s_.groups.push_back({.weights = &w_.slots[slot],
                           .in = rows.in.subspan(begin, count),
                           .out = rows.out.subspan(begin, count),
                           .out_is_far = rows.out_is_far.empty()
                                             ? rows.out_is_far
                                             : rows.out_is_far.subspan(begin, count)});
      num_rows += static_cast<int64_t>(count);
      begin += count;
    }
  }
  run();
  step.lap(Phase::kExperts);
}

void MoeLayer::observe(const Step& step, const ep::Routing& routing) const {
  if (!step.is_observed()) return;
  const int64_t layer = index(layer_);
  Matrix<float> ids(routing.num_tokens, routing.top_k);
  Matrix<float> weights(routing.num_tokens, routing.top_k);
  for (int64_t i = 0; i < routing.num_tokens * routing.top_k; ++i) {
    ids.data()[i] = static_cast<float>(index(routing.experts[static_cast<size_t>(i)]));
    weights.data()[i] = routing.weights[static_cast<size_t>(i)];
  }
  step.observe("moe", layer, "router_logits", router_.logits().slice(0, routing.num_tokens));
  step.observe("moe", layer, "topk_ids", ids.view());
  step.observe("moe", layer, "topk_weights", weights.view());
}

}  // namespace wideep::model
