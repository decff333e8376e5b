#include "model/make_checkpoint.h"

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/random.h"
#include "base/rounding.h"
#include "math/formats.h"
#include "model/exact_math.h"
#include "model/safetensors_writer.h"
#include "model/tensor_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>

namespace wideep::model {
namespace {

struct Shape {
  std::string_view name;
  std::string_view family;
  std::string_view sizes;
};

// What the models of a family have in common; a shape's sizes come on top.
constexpr std::string_view kDeepseekV3 = R"({"model_type": "deepseek_v3",
  "architectures": ["DeepseekV3ForCausalLM"], "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
  "v_head_dim": 128, "kv_lora_rank": 512, "n_shared_experts": 1, "num_experts_per_tok": 8,
  "n_group": 8, "topk_group": 4, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
  "norm_topk_prob": true, "routed_scaling_factor": 2.5, "rms_norm_eps": 1e-6,
  "rope_theta": 10000, "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 1,
  "max_position_embeddings": 163840, "rope_scaling": {"type": "yarn", "factor": 40,
  "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
  "original_max_position_embeddings": 4096}})";

constexpr std::string_view kDeepseekV2 = R"({"model_type": "deepseek_v2",
  "architectures": ["DeepseekV2ForCausalLM"], "q_lora_rank": null, "kv_lora_rank": 512,
  "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_shared_experts": 2,
  "num_experts_per_tok": 6, "n_group": 1, "topk_group": 1, "topk_method": "greedy",
  "scoring_func": "softmax", "norm_topk_prob": false, "routed_scaling_factor": 1.0,
  "rms_norm_eps": 1e-6, "rope_theta": 10000, "hidden_act": "silu",
  "max_position_embeddings": 163840, "rope_scaling": {"type": "yarn", "factor": 40,
  "beta_fast": 32, "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707,
  "original_max_position_embeddings": 4096}})";

constexpr std::string_view kQwen3Moe = R"({"model_type": "qwen3_moe",
  "architectures": ["Qwen3MoeForCausalLM"], "head_dim": 128, "num_experts_per_tok": 8,
  "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [],
  "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
  "hidden_act": "silu", "tie_word_embeddings": false})";

constexpr std::string_view kTiny = R"({"hidden_size": 256, "intermediate_size": 512,
  "num_hidden_layers": 4, "first_k_dense_replace": 1, "num_attention_heads": 4,
  "q_lora_rank": 128, "kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32,
  "v_head_dim": 64, "n_routed_experts": 16, "num_experts_per_tok": 4,
  "moe_intermediate_size": 128, "n_group": 4, "topk_group": 2, "num_nextn_predict_layers": 1,
  "vocab_size": 2048, "max_position_embeddings": 16384})";

constexpr std::string_view kTinyV2 = R"({"hidden_size": 256, "intermediate_size": 512,
  "num_hidden_layers": 3, "first_k_dense_replace": 1, "num_attention_heads": 4,
  "kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64,
  "n_routed_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 128,
  "vocab_size": 2048, "max_position_embeddings": 16384, "bos_token_id": 0, "eos_token_id": 1})";

constexpr std::string_view kTinyQwen3 = R"({"hidden_size": 256, "intermediate_size": 512,
  "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
  "num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 128,
  "vocab_size": 2048, "max_position_embeddings": 16384, "bos_token_id": 0, "eos_token_id": 1})";

constexpr std::string_view kDs2 = R"({"hidden_size": 2048, "intermediate_size": 6144,
  "num_hidden_layers": 8, "first_k_dense_replace": 1, "num_attention_heads": 16,
  "q_lora_rank": 768, "n_routed_experts": 64, "moe_intermediate_size": 512,
  "num_nextn_predict_layers": 0, "vocab_size": 16384})";

constexpr std::string_view kV2Lite = R"({"hidden_size": 2048, "intermediate_size": 10944,
  "num_hidden_layers": 27, "first_k_dense_replace": 1, "num_attention_heads": 16,
  "n_routed_experts": 64, "moe_intermediate_size": 1408, "vocab_size": 102400,
  "bos_token_id": 100000, "eos_token_id": 100001})";

constexpr std::string_view kQwen30b = R"({"hidden_size": 2048, "intermediate_size": 6144,
  "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
  "num_experts": 128, "moe_intermediate_size": 768, "vocab_size": 151936,
  "bos_token_id": 151643, "eos_token_id": 151645})";

constexpr std::string_view kR1 = R"({"hidden_size": 7168, "intermediate_size": 18432,
  "num_hidden_layers": 61, "first_k_dense_replace": 3, "num_attention_heads": 128,
  "q_lora_rank": 1536, "n_routed_experts": 256, "moe_intermediate_size": 2048,
  "num_nextn_predict_layers": 1, "vocab_size": 129280})";

constexpr std::array<Shape, 7> kShapes = {{{"tiny", kDeepseekV3, kTiny},
                                           {"tiny-v2", kDeepseekV2, kTinyV2},
                                           {"tiny-qwen3", kQwen3Moe, kTinyQwen3},
                                           {"ds2", kDeepseekV3, kDs2},
                                           {"v2-lite", kDeepseekV2, kV2Lite},
                                           {"qwen3-30b-a3b", kQwen3Moe, kQwen30b},
                                           {"r1", kDeepseekV3, kR1}}};

// Quantiles of the standard normal: value i is the one below which a share (i + 1/2) / size lies.
// By bisection of the integral, so that no table has to be believed.
class NormalTable {
 public:
  static constexpr size_t kSize = 4096;

  NormalTable() {
    constexpr double kStep = 1e-3;
    constexpr double kInverseRoot = 0.39894228040143267794;  // 1 / sqrt(2 pi)
    double x = -6;
    double below = 0;
    for (size_t i = 0; i < kSize; ++i) {
      const double wanted = (static_cast<double>(i) + 0.5) / kSize;
      while (below < wanted && x < 6) {
        const double middle = x + kStep / 2;
        below += kStep * kInverseRoot * exact_exp(-middle * middle / 2);
        x += kStep;
      }
      values_[i] = static_cast<float>(x);
    }
  }

  float at(uint64_t bits) const { return values_[bits % kSize]; }

 private:
  std::array<float, kSize> values_;
};

// What a tensor's values are drawn as.
struct Draw {
  float center = 0;
  float deviation = 1;
};

Draw draw_of(const TensorSpec& spec) {
  if (spec.role == TensorRole::kVector) {
    if (spec.name.ends_with("e_score_correction_bias")) return {.deviation = 0.05F};
    return {.center = 1, .deviation = 0.05F};
  }
  if (spec.name == "model.embed_tokens.weight") return {.deviation = 1};
  return {.deviation = 1 / std::sqrt(static_cast<float>(spec.cols))};
}

class Maker {
 public:
  Maker(const MakeCheckpointOptions& options, const ModelConfig& config)
      : options_(options), config_(config), writer_(options.folder, options.shard_bytes_max) {}

  Status run() {
    WD_TRY(for_each([&](const TensorSpec& spec) -> Status {
      declare(spec);
      return {};
    }));
    WD_TRY(check_room());
    WD_TRY(for_each([&](const TensorSpec& spec) { return write(spec); }));
    return writer_.finish();
  }

 private:
  Status for_each(TensorVisitor visit) const { return for_each_tensor(config_, true, visit); }

  Status check_room() const {
    std::error_code problem;
    const auto room = std::filesystem::space(options_.folder, problem).available;
    if (problem || static_cast<int64_t>(room) > writer_.total_bytes()) return {};
    return error(ErrorCode::kExhausted, "{}: the checkpoint has {} bytes, the disk has room for {}",
                 options_.folder, writer_.total_bytes(), room);
  }

  bool is_fp8(const TensorSpec& spec) const {
    return options_.fp8 && spec.role == TensorRole::kLinear;
  }

  bool is_f32(const TensorSpec& spec) const {
    return spec.name.ends_with("e_score_correction_bias");
  }

  static int64_t blocks(int64_t extent) { return divide_up(extent, math::kScaleBlock); }

  void declare(const TensorSpec& spec) {
    std::vector<int64_t> shape = {spec.rows};
    if (spec.cols > 0) shape.push_back(spec.cols);
    const Dtype plain = is_f32(spec) ? Dtype::kF32 : Dtype::kBf16;
    writer_.declare(spec.name, is_fp8(spec) ? Dtype::kF8E4M3 : plain, shape);
    if (!is_fp8(spec)) return;
    writer_.declare(spec.name + "_scale_inv", Dtype::kF32, {blocks(spec.rows), blocks(spec.cols)});
  }

  Status write(const TensorSpec& spec) {
    const int64_t count = spec.rows * std::max<int64_t>(1, spec.cols);
    const uint64_t seed = options_.seed ^ xxh64(spec.name);
    constexpr int64_t kChunk = 1 << 20;
    for (int64_t begin = 0; begin < count; begin += kChunk)
      WD_TRY(write_values(spec, seed, begin, std::min(kChunk, count - begin)));
    if (is_fp8(spec)) WD_TRY(write_scales(spec, seed));
    return {};
  }

  // Values [begin, begin + count) of a tensor, four from every 64 random bits. FP8 codes are drawn
  // with deviation 64, the block scales bring them to size.
  Status write_values(const TensorSpec& spec, uint64_t seed, int64_t begin, int64_t count) {
    constexpr int64_t kPerDraw = 4;
    const bool fp8 = is_fp8(spec);
    const Draw draw = fp8 ? Draw{.deviation = kFp8Deviation} : draw_of(spec);
    const int64_t value_bytes = fp8 ? 1 : is_f32(spec) ? 4 : 2;
    bytes_.resize(static_cast<size_t>(count * value_bytes));
    uint64_t bits = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t position = begin + i;
      if (i == 0 || position % kPerDraw == 0) {
        bits = random_bits(seed, static_cast<uint64_t>(position / kPerDraw));
        bits >>= 16 * (position % kPerDraw);
      }
      const float value = draw.center + draw.deviation * normal_.at(bits);
      bits >>= 16;
      store(value, fp8, value_bytes, i);
    }
    WD_TRY(writer_.write(bytes_));
    return report(count * value_bytes);
  }

  void store(float value, bool fp8, int64_t value_bytes, int64_t i) {
    std::byte* out = bytes_.data() + i * value_bytes;
    if (fp8) {
      *out = std::byte{math::f32_to_fp8(value)};
    } else if (value_bytes == 4) {
      std::memcpy(out, &value, 4);
    } else {
      const uint16_t rounded = math::f32_to_bf16(value);
      std::memcpy(out, &rounded, 2);
    }
  }

  Status write_scales(const TensorSpec& spec, uint64_t seed) {
    const int64_t count = blocks(spec.rows) * blocks(spec.cols);
    std::vector<float> scales(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      const float spread = 0.75F + 0.5F * random_uniform(seed, static_cast<uint64_t>(i), 1);
      scales[static_cast<size_t>(i)] = draw_of(spec).deviation / kFp8Deviation * spread;
    }
    WD_TRY(writer_.write(std::as_bytes(std::span(scales))));
    return report(count * 4);
  }

  Status report(int64_t bytes) {
    done_ += bytes;
    if (options_.progress) options_.progress(done_, writer_.total_bytes());
    return {};
  }

  static constexpr float kFp8Deviation = 64;

  const MakeCheckpointOptions& options_;
  const ModelConfig& config_;
  SafetensorsWriter writer_;
  const NormalTable normal_;
  std::vector<std::byte> bytes_;
  int64_t done_ = 0;
};

// A shape of the list.
Result<Json> find_shape(const MakeCheckpointOptions& options) {
  const auto shape = std::ranges::find(kShapes, options.shape, &Shape::name);
  if (shape == kShapes.end()) {
    return invalid_argument("no shape '{}' (there are: {}, or the path of a config.json)",
                            options.shape, fmt::join(checkpoint_shapes(), ", "));
  }
  WD_ASSIGN_OR_RETURN(Json config, parse_json(shape->family));
  WD_ASSIGN_OR_RETURN(const Json sizes, parse_json(shape->sizes));
  for (const auto& [key, value] : *sizes.as_object())
    config.set(key, value);
  return config;
}

// The shape of somebody's config.json; its number format is for `fp8` to say.
Result<Json> read_shape(const MakeCheckpointOptions& options) {
  constexpr int64_t kConfigBytesMax = 1 << 20;
  WD_ASSIGN_OR_RETURN(const std::string text, read_file(options.shape, kConfigBytesMax));
  WD_ASSIGN_OR_RETURN(Json config, parse_json(text));
  if (!config.is_object()) return invalid_argument("{}: not an object", options.shape);
  config.erase("quantization_config");
  return config;
}

}  // namespace

std::vector<std::string_view> checkpoint_shapes() {
  std::vector<std::string_view> names;
  for (const Shape& shape : kShapes)
    names.push_back(shape.name);
  return names;
}

Result<std::string> checkpoint_config(const MakeCheckpointOptions& options) {
  WD_ASSIGN_OR_RETURN(Json config,
                      options.shape.ends_with(".json") ? read_shape(options) : find_shape(options));
  if (options.num_layers > 0) config.set("num_hidden_layers", options.num_layers);
  if (options.num_experts > 0) {
    const bool is_qwen = config.find("num_experts") != nullptr;
    config.set(is_qwen ? "num_experts" : "n_routed_experts", options.num_experts);
  }
  config.set("torch_dtype", "bfloat16");
  if (options.fp8) {
    Json quantization;
    quantization.set("quant_method", "fp8")
        .set("fmt", "e4m3")
        .set("activation_scheme", "dynamic")
        .set("weight_block_size", Json::Array{128, 128});
    config.set("quantization_config", quantization);
  }
  return config.dump();
}

Status make_checkpoint(const MakeCheckpointOptions& options) {
  WD_ASSIGN_OR_RETURN(const std::string text, checkpoint_config(options));
  WD_ASSIGN_OR_RETURN(const ModelConfig config, parse_config(text));
  std::error_code problem;
  std::filesystem::create_directories(options.folder, problem);
  WD_TRY(write_file(options.folder + "/config.json", text));
  return Maker(options, config).run();
}

}  // namespace wideep::model
