// What config.json says of a model, checked: every size is positive and bounded, so that products
// of them fit 64 bits and nothing absurd is ever allocated from them.
//
// Families: DeepSeek-V3 (R1, V3.1, Kimi-K2), DeepSeek-V2 and Qwen3-MoE. Both spellings of
// transformers 4 and 5 are read (`rope_theta` + `rope_scaling`, or `rope_parameters`). What is not
// implemented is refused by name, never ignored.
#pragma once

#include "base/ids.h"
#include "base/json.h"
#include "base/result.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::model {

enum class AttentionKind : uint8_t {
  kMla,  // one latent row per token, shared by all heads
  kGqa,  // keys and values of num_kv_heads heads
};

struct RopeConfig {
  double theta = 10000;
  // YaRN when factor is set; else plain.
  bool is_yarn = false;
  double factor = 1;
  int64_t original_positions = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  double mscale = 1;
  double mscale_all_dim = 0;  // 0: the softmax scale stays as it is
};

inline constexpr int64_t kRouterGroupsMax = 256;

struct RouterConfig {
  enum class Score : uint8_t { kSigmoid, kSoftmax };
  // How groups of consecutive experts are ranked before the experts are.
  enum class GroupScore : uint8_t { kNone, kMax, kSumOfTopTwo };

  Score score = Score::kSoftmax;
  bool has_correction_bias = false;  // e_score_correction_bias, for the choice only
  GroupScore group_score = GroupScore::kNone;
  int64_t num_groups = 1;
  int64_t num_groups_kept = 1;
  int64_t num_experts = 0;
  int64_t top_k = 0;
  bool renormalise = false;
  double scale = 1;  // routed_scaling_factor as it applies, after renormalisation
};

// How the linear weights are stored; embedding, head, norms and router never are quantised.
enum class Quantization : uint8_t {
  kNone,
  kFp8Block,  // e4m3 with one f32 scale per 128 x 128 block (`weight_scale_inv`)
  kInt4Pack,  // compressed-tensors pack-quantized, groups of 32 inputs
};

struct ModelConfig {
  std::string model_type;

  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;  // of dense layers
  int64_t num_layers = 0;
  int64_t vocab_size = 0;
  int64_t max_positions = 0;
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;

  AttentionKind attention = AttentionKind::kMla;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;      // GQA
  int64_t head_dim = 0;          // GQA
  int64_t q_lora_rank = 0;       // MLA; 0: one q_proj
  int64_t kv_lora_rank = 0;      // MLA
  int64_t qk_nope_head_dim = 0;  // MLA
  int64_t qk_rope_head_dim = 0;  // MLA
  int64_t v_head_dim = 0;        // MLA
  RopeConfig rope;

  RouterConfig router;
  int64_t moe_intermediate_size = 0;
  int64_t num_shared_experts = 0;
  std::vector<bool> moe_layers;  // [num_layers + num_mtp_layers]

  int64_t num_mtp_layers = 0;  // multi-token prediction; its layer id is num_layers
  Quantization quantization = Quantization::kNone;

  std::optional<TokenId> bos_token;
  std::vector<TokenId> eos_tokens;

  bool is_moe(int64_t layer) const { return moe_layers[static_cast<size_t>(layer)]; }

  int64_t num_experts() const { return router.num_experts; }

  int64_t shared_intermediate_size() const { return num_shared_experts * moe_intermediate_size; }

  int64_t q_head_dim() const {
    return attention == AttentionKind::kMla ? qk_nope_head_dim + qk_rope_head_dim : head_dim;
  }

  // The decoder layers, and the first of the draft layers if wanted.
  int64_t num_layers_with_draft(bool draft) const {
    return num_layers + (draft && num_mtp_layers > 0 ? 1 : 0);
  }
};

// Parses the text of a config.json. Messages name the key: "config.json: key 'n_group': …".
Result<ModelConfig> parse_config(std::string_view text);

// What generation_config.json asks for where a request says nothing (as vLLM takes it).
struct GenerationConfig {
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<int64_t> max_new_tokens;
  std::vector<TokenId> eos_tokens;
};

Result<GenerationConfig> parse_generation_config(std::string_view text);

// Of a checkpoint folder. A missing generation_config.json gives the empty one.
Result<std::string> load_config_text(const std::string& folder);
Result<ModelConfig> load_config(const std::string& folder);
Result<GenerationConfig> load_generation_config(const std::string& folder);

}  // namespace wideep::model
