#include "model/tensor_names.h"

namespace wideep::model {
namespace {

// Builds the specs of one layer and hands them on; the first failure is kept and ends the visits.
class LayerTensors {
 public:
  LayerTensors(int64_t layer, TensorVisitor visit)
      : layer_(layer), prefix_(layer_prefix(layer)), visit_(visit) {}

  LayerTensors& vector(std::string_view name, int64_t rows) {
    return add(name, TensorRole::kVector, rows, 0);
  }

  LayerTensors& exact(std::string_view name, int64_t rows, int64_t cols) {
    return add(name, TensorRole::kExactMatrix, rows, cols);
  }

  LayerTensors& linear(std::string_view name, int64_t rows, int64_t cols) {
    return add(name, TensorRole::kLinear, rows, cols);
  }

  // gate, up and down of one feed-forward.
  LayerTensors& ffn(std::string_view name, int64_t inner, int64_t hidden) {
    linear(fmt::format("{}.gate_proj.weight", name), inner, hidden);
    linear(fmt::format("{}.up_proj.weight", name), inner, hidden);
    return linear(fmt::format("{}.down_proj.weight", name), hidden, inner);
  }

  const Status& status() const { return status_; }

 private:
  LayerTensors& add(std::string_view name, TensorRole role, int64_t rows, int64_t cols) {
    if (!status_) return *this;
    status_ = visit_({.name = fmt::format("{}{}", prefix_, name),
                      .role = role,
                      .rows = rows,
                      .cols = cols,
                      .layer = layer_});
    return *this;
  }

  int64_t layer_;
  std::string prefix_;
  TensorVisitor visit_;
  Status status_;
};

void mla_tensors(const ModelConfig& config, LayerTensors& tensors) {
  const int64_t hidden = config.hidden_size;
  const int64_t q_rows = config.num_heads * config.q_head_dim();
  if (config.q_lora_rank > 0) {
    tensors.linear("self_attn.q_a_proj.weight", config.q_lora_rank, hidden)
        .vector("self_attn.q_a_layernorm.weight", config.q_lora_rank)
        .linear("self_attn.q_b_proj.weight", q_rows, config.q_lora_rank);
  } else {
    tensors.linear("self_attn.q_proj.weight", q_rows, hidden);
  }
  tensors
      .linear("self_attn.kv_a_proj_with_mqa.weight", config.kv_lora_rank + config.qk_rope_head_dim,
              hidden)
      .vector("self_attn.kv_a_layernorm.weight", config.kv_lora_rank)
      .linear("self_attn.kv_b_proj.weight",
              config.num_heads * (config.qk_nope_head_dim + config.v_head_dim), config.kv_lora_rank)
      .linear("self_attn.o_proj.weight", hidden, config.num_heads * config.v_head_dim);
}

void gqa_tensors(const ModelConfig& config, LayerTensors& tensors) {
  const int64_t hidden = config.hidden_size;
  const int64_t q_rows = config.num_heads * config.head_dim;
  const int64_t kv_rows = config.num_kv_heads * config.head_dim;
  tensors.linear("self_attn.q_proj.weight", q_rows, hidden)
      .linear("self_attn.k_proj.weight", kv_rows, hidden)
      .linear("self_attn.v_proj.weight", kv_rows, hidden)
      .linear("self_attn.o_proj.weight", hidden, q_rows)
      .vector("self_attn.q_norm.weight", config.head_dim)
      .vector("self_attn.k_norm.weight", config.head_dim);
}

Status for_each_draft_tensor(const ModelConfig& config, int64_t layer, TensorVisitor visit) {
  return LayerTensors(layer, visit)
      .vector("enorm.weight", config.hidden_size)
      .vector("hnorm.weight", config.hidden_size)
      .linear("eh_proj.weight", config.hidden_size, 2 * config.hidden_size)
      .vector("shared_head.norm.weight", config.hidden_size)
      .status();
}

Status for_each_layer_tensor(const ModelConfig& config, int64_t layer, TensorVisitor visit) {
  WD_TRY(for_each_attention_tensor(config, layer, visit));
  WD_TRY(for_each_ffn_tensor(config, layer, visit));
  if (!config.is_moe(layer)) return {};
  for (int64_t expert = 0; expert < config.num_experts(); ++expert)
    WD_TRY(for_each_expert_tensor(config, layer, expert, visit));
  return {};
}

}  // namespace

std::string layer_prefix(int64_t layer) {
  return fmt::format("model.layers.{}.", layer);
}

std::string expert_tensor_name(int64_t layer, int64_t expert, std::string_view part) {
  return fmt::format("{}mlp.experts.{}.{}.weight", layer_prefix(layer), expert, part);
}

Status for_each_attention_tensor(const ModelConfig& config, int64_t layer, TensorVisitor visit) {
  LayerTensors tensors(layer, visit);
  tensors.vector("input_layernorm.weight", config.hidden_size)
      .vector("post_attention_layernorm.weight", config.hidden_size);
  if (config.attention == AttentionKind::kMla) {
    mla_tensors(config, tensors);
  } else {
    gqa_tensors(config, tensors);
  }
  return tensors.status();
}

Status for_each_ffn_tensor(const ModelConfig& config, int64_t layer, TensorVisitor visit) {
  LayerTensors tensors(layer, visit);
  if (!config.is_moe(layer)) {
    return tensors.ffn("mlp", config.intermediate_size, config.hidden_size).status();
  }
  tensors.exact("mlp.gate.weight", config.num_experts(), config.hidden_size);
  if (config.router.has_correction_bias) {
    tensors.vector("mlp.gate.e_score_correction_bias", config.num_experts());
  }
  if (config.num_shared_experts > 0) {
    tensors.ffn("mlp.shared_experts", config.shared_intermediate_size(), config.hidden_size);
  }
  return tensors.status();
}

Status for_each_expert_tensor(const ModelConfig& config,
                              int64_t layer,
                              int64_t expert,
                              TensorVisitor visit) {
  const int64_t inner = config.moe_intermediate_size;
  for (const std::string_view part : {"gate_proj", "up_proj", "down_proj"}) {
    const bool down = part == "down_proj";
    WD_TRY(visit({.name = expert_tensor_name(layer, expert, part),
                  .role = TensorRole::kLinear,
                  .rows = down ? config.hidden_size : inner,
                  .cols = down ? inner : config.hidden_size,
                  .layer = layer,
                  .expert = expert}));
  }
  return {};
}

Status for_each_tensor(const ModelConfig& config, bool draft, TensorVisitor visit) {
  const int64_t hidden = config.hidden_size;
  WD_TRY(visit({"model.embed_tokens.weight", TensorRole::kExactMatrix, config.vocab_size, hidden}));
  for (int64_t layer = 0; layer < config.num_layers_with_draft(draft); ++layer) {
    if (layer >= config.num_layers) WD_TRY(for_each_draft_tensor(config, layer, visit));
    WD_TRY(for_each_layer_tensor(config, layer, visit));
  }
  WD_TRY(visit({"model.norm.weight", TensorRole::kVector, hidden, 0}));
  if (config.tie_word_embeddings) return {};
  return visit({"lm_head.weight", TensorRole::kExactMatrix, config.vocab_size, hidden});
}

}  // namespace wideep::model
