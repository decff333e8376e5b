// The tensors that a model is made of: their names in a Hugging Face checkpoint and their shapes.
// Said once: the checkpoint is checked against this list, the loader asks for its entries, and the
// maker of random checkpoints writes it.
#pragma once

#include "base/function_ref.h"
#include "base/result.h"
#include "model/config.h"

#include <cstdint>
#include <string>

namespace wideep::model {

enum class TensorRole : uint8_t {
  kVector,       // norm weights and the router's bias: [rows]
  kExactMatrix,  // embedding, head, router: never quantised
  kLinear,       // may be stored as FP8 or INT4 with scales
};

struct TensorSpec {
  std::string name;
  TensorRole role = TensorRole::kLinear;
  int64_t rows = 0;
  int64_t cols = 0;    // 0 for vectors
  int64_t layer = -1;  // -1: outside the layers
  int64_t expert = -1;
};

// "model.layers.3."
std::string layer_prefix(int64_t layer);
// "model.layers.3.mlp.experts.7.gate_proj.weight": `part` is "gate_proj", "up_proj" or "down_proj".
std::string expert_tensor_name(int64_t layer, int64_t expert, std::string_view part);

using TensorVisitor = FunctionRef<Status(const TensorSpec&)>;

// Visits every tensor that a forward needs (with the draft layer if `draft`), until a visit fails.
// Nothing is allocated in proportion to the config.
Status for_each_tensor(const ModelConfig& config, bool draft, TensorVisitor visit);

// One layer's share of it; the attention and the norms; the feed-forward without experts; one
// expert.
Status for_each_attention_tensor(const ModelConfig& config, int64_t layer, TensorVisitor visit);
Status for_each_ffn_tensor(const ModelConfig& config, int64_t layer, TensorVisitor visit);
Status for_each_expert_tensor(const ModelConfig& config,
                              int64_t layer,
                              int64_t expert,
                              TensorVisitor visit);

}  // namespace wideep::model
