#include "model/decoder_model.h"

#include "base/check.h"

#include <algorithm>
#include <cstring>

namespace wideep::model {
namespace {

int64_t widest_input(const ModelConfig& config) {
  return std::max({2 * config.hidden_size, config.q_lora_rank,
                   config.num_heads * std::max(config.v_head_dim, config.head_dim)});
}

int64_t rope_dim(const ModelConfig& config) {
  return config.attention == AttentionKind::kMla ? config.qk_rope_head_dim : config.head_dim;
}

}  // namespace

DecoderModel::DecoderModel(ModelConfig config,
                           NumericConfig numeric,
                           std::string fingerprint,
                           ModelWeights weights,
                           ThreadPool& pool,
                           const DecoderOptions& options)
    : config_(std::move(config)),
      numeric_(numeric),
      fingerprint_(std::move(fingerprint)),
      weights_(std::move(weights)),
      options_(options),
      compute_{pool, math::kernels(numeric.isa), numeric.precision, options.rows_max},
      projector_(compute_, widest_input(config_)),
      step_(compute_,
            config_.rope,
            rope_dim(config_),
            cache_group(config_,
                        numeric.cache_format,
                        config_.num_layers_with_draft(options.draft),
                        options.block_tokens)),
      attention_scratch_(compute_, projector_, config_, numeric, options.block_tokens),
      ffn_scratch_(compute_,
                   config_,
                   numeric.row_formats(),
                   options.expert_rows_max > 0 ? options.expert_rows_max
                                               : options.rows_max * config_.router.top_k),
      x_(options.rows_max, config_.hidden_size),
      h_(options.rows_max, config_.hidden_size),
      final_norm_(options.rows_max, config_.hidden_size),
      draft_in_(options.draft ? options.rows_max : 0, 2 * config_.hidden_size),
      picked_(options.rows_max, config_.hidden_size),
      logits_(options.rows_max, config_.vocab_size) {
  router_scratch_.emplace(compute_, projector_, config_.router);
  for (int64_t id = 0; id < config_.num_layers; ++id)
    layers_.push_back(make_layer(id));
  if (options.draft) draft_layer_.emplace(make_layer(config_.num_layers));
}

DecoderModel::Layer DecoderModel::make_layer(int64_t id) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(id)];
  Layer layer{.id = id, .weights = w};
  if (config_.attention == AttentionKind::kMla) {
    layer.attention = std::make_unique<MlaAttention>(w.mla, id, attention_scratch_);
  } else {
    layer.attention = std::make_unique<GqaAttention>(w.gqa, id, attention_scratch_);
  }
  if (config_.is_moe(id)) {
    layer.feed_forward = std::make_unique<MoeLayer>(w.moe, LayerId{static_cast<int32_t>(id)},
                                                    *router_scratch_, ffn_scratch_);
  } else {
    layer.feed_forward = std::make_unique<DenseFfn>(w.dense, ffn_scratch_);
  }
  return layer;
}

kv::KvLayout DecoderModel::kv_layout(int64_t block_tokens) const {
  WD_CHECK(block_tokens == options_.block_tokens);
  return {.groups = {cache_group(config_, numeric_.cache_format,
                                 config_.num_layers_with_draft(options_.draft), block_tokens)}};
}

Result<MatrixView<const float>> DecoderModel::forward(const Batch& batch,
                                                      ep::AllToAll& all_to_all) {
  WD_TRY(check(batch, all_to_all));
  step_.begin(batch);
  const MatrixView<float> x = x_.view().slice(0, batch.num_rows());
  embed(batch.tokens, x);
  step_.lap(Phase::kEmbed);
  step_.observe("embed", -1, "", x);
  for (Layer& layer : layers_) {
    WD_TRY(run_layer(layer, x, all_to_all));
    step_.observe("hidden", layer.id, "", x);
  }
  if (draft_layer_ || step_.is_observed()) {
    const MatrixView<float> all = final_norm_.view().slice(0, x.rows);
    norm(x, weights_.final_norm, all);
    step_.observe("final_norm", -1, "", all);
  }
  return head(x, weights_.final_norm);
}

// h_i of the main model (after its final norm) and the token behind it make the input; the layer
// has a cache of its own, as the last layer of the group.
Result<MatrixView<const float>> DecoderModel::draft(const Batch& next, ep::AllToAll& all_to_all) {
  WD_CHECK(draft_layer_.has_value());
  WD_TRY(check(next, all_to_all));
  step_.begin(next);
  const int64_t hidden = config_.hidden_size;
  const MatrixView<float> x = x_.view().slice(0, next.num_rows());
  const MatrixView<float> in = draft_in_.view().slice(0, next.num_rows());
  embed(next.tokens, x);
  norm(x, weights_.draft.embedding_norm, {in.data, in.rows, hidden, in.stride});
  norm(final_norm_.view().slice(0, x.rows), weights_.draft.hidden_norm,
       {in.data + hidden, in.rows, hidden, in.stride});
  projector_.multiply(weights_.draft.eh_proj, in, x);
  step_.lap(Phase::kEmbed);
  step_.observe("mtp", -1, "block_input", x);
  WD_TRY(run_layer(*draft_layer_, x, all_to_all));
  step_.observe("mtp", -1, "hidden", x);
  return head(x, weights_.draft.head_norm);
}

Status DecoderModel::check(const Batch& batch, const ep::AllToAll& all_to_all) const {
  const int64_t rows_max = std::min(options_.rows_max, all_to_all.tokens_max());
  if (batch.num_rows() > rows_max) {
    return invalid_argument("a step of {} rows, at most {} allowed", batch.num_rows(), rows_max);
  }
  return {};
}

void DecoderModel::embed(std::span<const TokenId> tokens, MatrixView<float> x) const {
  const EmbeddingWeights& w = weights_.embedding;
  const bool is_bf16 = w.format == math::WeightFormat::kBf16;
  const int64_t row_bytes = x.cols * (is_bf16 ? 2 : 4);
  compute_.for_rows(x.rows, [&](int64_t r) {
    const int64_t token = index(tokens[static_cast<size_t>(r)]);
    WD_CHECK(token >= 0);
    WD_CHECK(token < config_.vocab_size);
    const std::byte* from = w.rows.data() + token * row_bytes;
    if (!is_bf16) {
      std::memcpy(x.row(r).data(), from, static_cast<size_t>(row_bytes));
      return;
    }
    const auto* values = reinterpret_cast<const uint16_t*>(from);
    std::transform(values, values + x.cols, x.row(r).begin(), math::bf16_to_f32);
  });
}

void DecoderModel::norm(MatrixView<const float> x,
                        std::span<const float> weight,
                        MatrixView<float> out) const {
  compute_.for_rows(x.rows, [&](int64_t r) {
    compute_.kernels.rms_norm(x.row(r).data(), weight.data(), x.cols,
                              static_cast<float>(config_.rms_norm_eps), out.row(r).data());
  });
}

// Attention is step 1 of expert parallelism; a MoE layer's feed-forward is steps 2 to 5.
Status DecoderModel::run_layer(Layer& layer, MatrixView<float> x, ep::AllToAll& all_to_all) {
  const MatrixView<float> h = h_.view().slice(0, x.rows);
  if (x.rows > 0) {
    norm(x, layer.weights.input_norm, h);
    step_.lap(Phase::kNorm);
    layer.attention->forward(step_, h, x);
    norm(x, layer.weights.post_attention_norm, h);
    step_.lap(Phase::kNorm);
  }
  return layer.feed_forward->forward(step_, h, x, all_to_all);
}

MatrixView<const float> DecoderModel::head(MatrixView<const float> x,
                                           std::span<const float> norm_weight) {
  const std::vector<int64_t>& rows = step_.batch().logit_rows;
  const auto count = static_cast<int64_t>(rows.size());
  WD_CHECK(count <= options_.rows_max);
  const MatrixView<float> picked = picked_.view().slice(0, count);
  compute_.for_rows(count, [&](int64_t i) {
    const std::span<const float> row = x.row(rows[static_cast<size_t>(i)]);
    compute_.kernels.rms_norm(row.data(), norm_weight.data(), x.cols,
                              static_cast<float>(config_.rms_norm_eps), picked.row(i).data());
  });
  const MatrixView<float> logits = logits_.view().slice(0, count);
  projector_.multiply(weights_.lm_head, picked, logits);
  step_.lap(Phase::kHead);
  return logits;
}

}  // namespace wideep::model
