#include "model/config.h"

#include "base/file.h"
#include "ep/exchange_layout.h"
#include "ep/placement.h"
#include "math/gemm.h"
#include "model/config_keys.h"

#include <algorithm>
#include <array>
#include <filesystem>

namespace wideep::model {
namespace {

constexpr int64_t kConfigBytesMax = 4 << 20;
constexpr IntRange kWidth{1, 1 << 20};
constexpr IntRange kLayers{1, 1024};
constexpr IntRange kHeads{1, 4096};
constexpr IntRange kHeadDim{1, 8192};
constexpr IntRange kVocab{1, 1 << 22};
constexpr IntRange kExperts{1, ep::kExpertsMax};
constexpr IntRange kGroups{1, kRouterGroupsMax};
constexpr IntRange kTokenId{0, INT32_MAX};
constexpr IntRange kPositions{1, int64_t{1} << 30};

enum class Family : uint8_t { kDeepSeekV3, kDeepSeekV2, kQwen3Moe };

struct FamilyName {
  std::string_view model_type;
  Family family;
};

constexpr std::array<FamilyName, 4> kFamilies = {{
    {"deepseek_v3", Family::kDeepSeekV3},
    {"kimi_k2", Family::kDeepSeekV3},
    {"deepseek_v2", Family::kDeepSeekV2},
    {"qwen3_moe", Family::kQwen3Moe},
}};

std::optional<Family> find_family(ConfigKeys& keys) {
  const std::string model_type = keys.string("model_type");
  for (const FamilyName& entry : kFamilies) {
    if (entry.model_type == model_type) return entry.family;
  }
  std::string supported;
  for (const FamilyName& entry : kFamilies)
    supported += fmt::format("{}{}", supported.empty() ? "" : ", ", entry.model_type);
  keys.fail("model_type",
            fmt::format("'{}' is not supported (supported: {})", model_type, supported));
  return std::nullopt;
}

void read_yarn(ConfigKeys& keys, RopeConfig& rope) {
  rope.is_yarn = true;
  rope.factor = keys.number("factor", {1, 1e6});
  rope.original_positions = keys.integer("original_max_position_embeddings", kPositions);
  rope.beta_fast = keys.number_or("beta_fast", 32, {1e-3, 1e6});
  rope.beta_slow = keys.number_or("beta_slow", 1, {1e-3, 1e6});
  rope.mscale = keys.number_or("mscale", 1, {0, 100});
  rope.mscale_all_dim = keys.number_or("mscale_all_dim", 0, {0, 100});
}

// `rope_theta` with `rope_scaling`, or both in `rope_parameters`.
RopeConfig read_rope(ConfigKeys& keys) {
  constexpr DoubleRange kTheta{1.0 + 1e-6, 1e12};
  RopeConfig rope;
  const std::string_view name = keys.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const Json* object = keys.object(name);
  if (object == nullptr) {
    rope.theta = keys.number_or("rope_theta", rope.theta, kTheta);
    return rope;
  }
  ConfigKeys inner(*object, fmt::format("{}.", name));
  rope.theta = inner.has("rope_theta") ? inner.number("rope_theta", kTheta)
                                       : keys.number_or("rope_theta", rope.theta, kTheta);
  const std::string type = inner.string_or("rope_type", inner.string_or("type", "default"));
  if (type == "yarn") {
    read_yarn(inner, rope);
  } else if (type != "default") {
    inner.fail(inner.has("rope_type") ? "rope_type" : "type",
               fmt::format("'{}' is not supported (supported: default, yarn)", type));
  }
  if (!inner.status()) keys.adopt(inner.status());
  return rope;
}

Quantization read_fp8(ConfigKeys& keys) {
  const std::string fmt = keys.string_or("fmt", "e4m3");
  if (fmt != "e4m3") keys.fail("fmt", fmt::format("'{}' is not supported (e4m3 is)", fmt));
  const std::vector<int64_t> block = keys.integers("weight_block_size", {1, 1 << 20});
  if (block != std::vector<int64_t>{128, 128}) {
    keys.fail("weight_block_size", "only [128, 128] is supported");
  }
  const std::string scheme = keys.string_or("activation_scheme", "dynamic");
  if (scheme != "dynamic") {
    keys.fail("activation_scheme", fmt::format("'{}' is not supported (dynamic is)", scheme));
  }
  return Quantization::kFp8Block;
}

// compressed-tensors: one group of rules, 4-bit symmetric integers in groups of 32 inputs.
Quantization read_compressed_tensors(ConfigKeys& keys) {
  const std::string format = keys.string("format");
  if (format != "pack-quantized") {
    keys.fail("format", fmt::format("'{}' is not supported (pack-quantized is)", format));
  }
  const Json* groups = keys.object("config_groups");
  if (groups == nullptr || groups->as_object()->size() != 1) {
    keys.fail("config_groups", "one group is supported");
    return Quantization::kInt4Pack;
  }
  const Json* weights = groups->as_object()->front().second.find("weights");
  if (weights == nullptr || !weights->is_object()) {
    keys.fail("config_groups", "'weights' is missing");
    return Quantization::kInt4Pack;
  }
  ConfigKeys inner(*weights, "quantization_config.config_groups.weights.");
  inner.integer("num_bits", {4, 4});
  inner.integer("group_size", {32, 32});
  if (inner.string_or("type", "int") != "int") inner.fail("type", "only 'int' is supported");
  if (!inner.boolean_or("symmetric", true)) inner.fail("symmetric", "only true is supported");
  if (inner.string_or("actorder", "static") == "group") {
    inner.fail("actorder", "'group' is not supported: its groups are not 32 inputs in a row");
  }
  if (!inner.status()) keys.adopt(inner.status());
  return Quantization::kInt4Pack;
}

Quantization read_quantization(ConfigKeys& keys) {
  const Json* object = keys.object("quantization_config");
  if (object == nullptr) return Quantization::kNone;
  ConfigKeys inner(*object, "quantization_config.");
  Quantization quantization = Quantization::kNone;
  const std::string method = inner.string("quant_method");
  if (method == "fp8") {
    quantization = read_fp8(inner);
  } else if (method == "compressed-tensors") {
    quantization = read_compressed_tensors(inner);
  } else {
    inner.fail("quant_method", fmt::format("'{}' is not supported (supported: fp8, "
                                           "compressed-tensors)",
                                           method));
  }
  if (!inner.status()) keys.adopt(inner.status());
  return quantization;
}

void read_common(ConfigKeys& keys, ModelConfig& config) {
  config.hidden_size = keys.integer("hidden_size", kWidth);
  config.intermediate_size = keys.integer("intermediate_size", kWidth);
  config.num_layers = keys.integer("num_hidden_layers", kLayers);
  config.vocab_size = keys.integer("vocab_size", kVocab);
  config.num_heads = keys.integer("num_attention_heads", kHeads);
  config.max_positions = keys.integer("max_position_embeddings", kPositions);
  config.rms_norm_eps = keys.number("rms_norm_eps", {0, 1});
  config.tie_word_embeddings = keys.boolean_or("tie_word_embeddings", false);
  config.moe_intermediate_size = keys.integer("moe_intermediate_size", kWidth);
  config.router.top_k = keys.integer("num_experts_per_tok", {1, ep::kTopKMax});
  config.rope = read_rope(keys);
  config.quantization = read_quantization(keys);
  if (keys.has("bos_token_id")) {
    config.bos_token = TokenId{static_cast<int32_t>(keys.integer("bos_token_id", kTokenId))};
  }
  for (const int64_t id : keys.integers("eos_token_id", kTokenId))
    config.eos_tokens.push_back(TokenId{static_cast<int32_t>(id)});
  if (keys.boolean_or("attention_bias", false)) {
    keys.fail("attention_bias", "true is not supported");
  }
  const std::string act = keys.string_or("hidden_act", "silu");
  if (act != "silu") keys.fail("hidden_act", fmt::format("'{}' is not supported (silu is)", act));
}

void read_mla(ConfigKeys& keys, ModelConfig& config) {
  config.attention = AttentionKind::kMla;
  config.num_kv_heads = 1;
  config.q_lora_rank = keys.integer_or("q_lora_rank", 0, kWidth);
  config.kv_lora_rank = keys.integer("kv_lora_rank", kHeadDim);
  config.qk_nope_head_dim = keys.integer("qk_nope_head_dim", kHeadDim);
  config.qk_rope_head_dim = keys.integer("qk_rope_head_dim", kHeadDim);
  config.v_head_dim = keys.integer("v_head_dim", kHeadDim);
  if (config.qk_rope_head_dim % 2 != 0) keys.fail("qk_rope_head_dim", "must be even");
  if (!keys.boolean_or("rope_interleave", true)) {
    keys.fail("rope_interleave", "false is not supported");
  }
}

void read_gqa(ConfigKeys& keys, ModelConfig& config) {
  config.attention = AttentionKind::kGqa;
  config.num_kv_heads = keys.integer("num_key_value_heads", kHeads);
  const int64_t quotient = std::max<int64_t>(1, config.hidden_size / config.num_heads);
  config.head_dim = keys.integer_or("head_dim", quotient, kHeadDim);
  if (config.num_heads % config.num_kv_heads != 0) {
    keys.fail("num_key_value_heads", fmt::format("{} does not divide the {} attention heads",
                                                 config.num_kv_heads, config.num_heads));
  }
  if (config.head_dim % 2 != 0) keys.fail("head_dim", "must be even");
  if (keys.boolean_or("use_sliding_window", false)) {
    keys.fail("use_sliding_window", "true is not supported");
  }
  if (config.rope.is_yarn) keys.fail("rope_scaling", "yarn is supported with MLA only");
}

// Routing of the DeepSeek families: groups, scores, scaling.
void read_deepseek_router(ConfigKeys& keys, Family family, RouterConfig& router) {
  const bool v3 = family == Family::kDeepSeekV3;
  router.num_experts = keys.integer("n_routed_experts", kExperts);
  router.num_groups = keys.integer_or("n_group", 1, kGroups);
  router.num_groups_kept = keys.integer_or("topk_group", 1, kGroups);
  const std::string method = keys.string_or("topk_method", v3 ? "noaux_tc" : "greedy");
  const std::string score = keys.string_or("scoring_func", v3 ? "sigmoid" : "softmax");
  router.renormalise = keys.boolean_or("norm_topk_prob", v3) && router.top_k > 1;
  router.scale = keys.number_or("routed_scaling_factor", 1, {1e-6, 1e6});
  using GroupScore = RouterConfig::GroupScore;
  if (method == "noaux_tc" && score == "sigmoid") {
    router.score = RouterConfig::Score::kSigmoid;
    router.has_correction_bias = true;
    router.group_score = GroupScore::kSumOfTopTwo;
    router.renormalise = keys.boolean_or("norm_topk_prob", v3);
  } else if ((method == "greedy" || method == "group_limited_greedy") && score == "softmax") {
    router.group_score = method == "greedy" ? GroupScore::kNone : GroupScore::kMax;
    if (router.renormalise) router.scale = 1;  // V2 scales only what it does not renormalise
  } else {
    keys.fail("topk_method",
              fmt::format("'{}' with scoring_func '{}' is not supported (supported: noaux_tc with "
                          "sigmoid; greedy and group_limited_greedy with softmax)",
                          method, score));
  }
  if (router.num_groups == 1) router.group_score = GroupScore::kNone;
}

// What the products of math can sum.
void check_widths(ConfigKeys& keys, const ModelConfig& config) {
  const std::pair<std::string_view, int64_t> widths[] = {
      {"hidden_size", 2 * config.hidden_size},  // the draft layer takes two rows side by side
      {"intermediate_size", config.intermediate_size},
      {"moe_intermediate_size",
       std::max(config.moe_intermediate_size, config.shared_intermediate_size())},
      {"q_lora_rank", config.q_lora_rank},
      {"num_attention_heads", config.num_heads * std::max(config.v_head_dim, config.head_dim)}};
  for (const auto& [key, inputs] : widths) {
    if (inputs > math::kInputsMax)
      keys.fail(key, fmt::format("makes a matrix of {} inputs, at most {} allowed", inputs,
                                 math::kInputsMax));
  }
}

void check_router(ConfigKeys& keys, const RouterConfig& router) {
  if (!keys.status()) return;
  int64_t candidates = router.num_experts;
  if (router.group_score != RouterConfig::GroupScore::kNone) {
    if (router.num_experts % router.num_groups != 0) {
      keys.fail("n_group", fmt::format("{} does not divide n_routed_experts {}", router.num_groups,
                                       router.num_experts));
      return;
    }
    if (router.num_groups_kept > router.num_groups) {
      keys.fail("topk_group", fmt::format("{} is more than n_group {}", router.num_groups_kept,
                                          router.num_groups));
      return;
    }
    candidates = router.num_experts / router.num_groups * router.num_groups_kept;
  }
  if (router.top_k > candidates) {
    keys.fail(
        "num_experts_per_tok",
        fmt::format("{} is more than the {} experts that can be chosen", router.top_k, candidates));
  }
}

void read_deepseek(ConfigKeys& keys, Family family, ModelConfig& config) {
  read_mla(keys, config);
  read_deepseek_router(keys, family, config.router);
  config.num_shared_experts = keys.integer_or("n_shared_experts", 0, {0, 64});
  config.num_mtp_layers = keys.integer_or("num_nextn_predict_layers", 0, {0, 8});
  const int64_t dense = keys.integer_or("first_k_dense_replace", 0, {0, kLayers.max});
  const int64_t every = keys.integer_or("moe_layer_freq", 1, {1, kLayers.max});
  for (int64_t layer = 0; layer < config.num_layers + config.num_mtp_layers; ++layer)
    config.moe_layers.push_back(layer >= dense && layer % every == 0);
}

void read_qwen3_moe(ConfigKeys& keys, ModelConfig& config) {
  read_gqa(keys, config);
  config.router.num_experts = keys.integer("num_experts", kExperts);
  config.router.renormalise = keys.boolean_or("norm_topk_prob", false);
  const int64_t step = keys.integer_or("decoder_sparse_step", 1, {1, kLayers.max});
  const std::vector<int64_t> dense = keys.integers("mlp_only_layers", {0, kLayers.max});
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const bool is_dense = std::ranges::find(dense, layer) != dense.end();
    config.moe_layers.push_back(!is_dense && (layer + 1) % step == 0);
  }
}

Result<Json> parse_object(std::string_view text) {
  WD_ASSIGN_OR_RETURN(Json json, parse_json(text, {.depth_max = 32, .values_max = 1 << 20}));
  if (!json.is_object())
    return invalid_argument("an object is wanted, not a {}", name(json.kind()));
  return json;
}

Result<ModelConfig> parse_config_object(const Json& json) {
  ConfigKeys keys(json);
  ModelConfig config;
  const std::optional<Family> family = find_family(keys);
  if (!family) return std::unexpected(keys.status().error());
  config.model_type = keys.string("model_type");
  read_common(keys, config);
  if (*family == Family::kQwen3Moe) {
    read_qwen3_moe(keys, config);
  } else {
    read_deepseek(keys, *family, config);
  }
  check_router(keys, config.router);
  check_widths(keys, config);
  if (!keys.status()) return std::unexpected(keys.status().error());
  return config;
}

std::optional<double> optional_number(ConfigKeys& keys, std::string_view key, DoubleRange range) {
  if (!keys.has(key)) return std::nullopt;
  return keys.number(key, range);
}

std::optional<int64_t> optional_integer(ConfigKeys& keys, std::string_view key, IntRange range) {
  if (!keys.has(key)) return std::nullopt;
  return keys.integer(key, range);
}

}  // namespace

Result<ModelConfig> parse_config(std::string_view text) {
  auto json = parse_object(text);
  if (!json) return with_context(json.error(), "config.json");
  auto config = parse_config_object(*json);
  if (!config) return with_context(config.error(), "config.json");
  return config;
}

Result<GenerationConfig> parse_generation_config(std::string_view text) {
  auto json = parse_object(text);
  if (!json) return with_context(json.error(), "generation_config.json");
  ConfigKeys keys(*json);
  GenerationConfig config;
  config.temperature = optional_number(keys, "temperature", {0, 100});
  config.top_p = optional_number(keys, "top_p", {0, 1});
  config.top_k = optional_integer(keys, "top_k", {-1, INT32_MAX});
  config.min_p = optional_number(keys, "min_p", {0, 1});
  config.repetition_penalty = optional_number(keys, "repetition_penalty", {1e-3, 1e3});
  config.max_new_tokens = optional_integer(keys, "max_new_tokens", {1, INT32_MAX});
  for (const int64_t id : keys.integers("eos_token_id", kTokenId))
    config.eos_tokens.push_back(TokenId{static_cast<int32_t>(id)});
  if (!keys.status()) return with_context(keys.status().error(), "generation_config.json");
  return config;
}

Result<std::string> load_config_text(const std::string& folder) {
  if (!std::filesystem::is_directory(folder))
    return error(ErrorCode::kNotFound,
                 "{} is no folder of this machine; models are not downloaded: give the folder of a "
                 "checkpoint",
                 folder);
  return read_file(folder + "/config.json", kConfigBytesMax);
}

Result<ModelConfig> load_config(const std::string& folder) {
  WD_ASSIGN_OR_RETURN(const std::string text, load_config_text(folder));
  return parse_config(text);
}

Result<GenerationConfig> load_generation_config(const std::string& folder) {
  auto text = read_file(folder + "/generation_config.json", kConfigBytesMax);
  if (!text && text.error().code == ErrorCode::kNotFound) return GenerationConfig{};
  if (!text) return std::unexpected(text.error());
  return parse_generation_config(*text);
}

}  // namespace wideep::model
