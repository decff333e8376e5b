#include "model/config.h"

#include "base/file.h"
#include "ep/placement.h"
#include "math/gemm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::model {
namespace {

using testing::HasSubstr;

std::string golden(std::string_view name) {
  return fmt::format("{}/tests/golden/data/{}", WIDEEP_SOURCE_DIR, name);
}

Json golden_config(std::string_view name) {
  return *parse_json(*read_file(golden(name) + "/config.json", 1 << 20));
}

std::string message(const Result<ModelConfig>& result) {
  return result ? "accepted" : result.error().message;
}

// The message after one key of the V3 config was replaced (or erased, by null).
std::string message_with(std::string_view key, Json value) {
  Json json = golden_config("dsv3-tiny-bf16");
  if (value.is_null()) {
    json.erase(key);
  } else {
    json.set(key, std::move(value));
  }
  return message(parse_config(json.dump()));
}

TEST(Config, ReadsDeepSeekV3) {
  const auto config = load_config(golden("dsv3-tiny-bf16"));
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->attention, AttentionKind::kMla);
  EXPECT_EQ(config->hidden_size, 256);
  EXPECT_EQ(config->q_lora_rank, 96);
  EXPECT_EQ(config->router.top_k, 4);
  EXPECT_EQ(config->router.score, RouterConfig::Score::kSigmoid);
  EXPECT_EQ(config->router.group_score, RouterConfig::GroupScore::kSumOfTopTwo);
  EXPECT_TRUE(config->rope.is_yarn);
  EXPECT_EQ(config->rope.mscale_all_dim, 1.0);
  EXPECT_FALSE(config->is_moe(0));
  EXPECT_TRUE(config->is_moe(1));
  EXPECT_EQ(config->eos_tokens, std::vector{TokenId{1}});
}

TEST(Config, ReadsDeepSeekV2WithOneQueryProjectionAndNoGroups) {
  const auto config = load_config(golden("dsv2-tiny-bf16"));
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->q_lora_rank, 0);
  EXPECT_EQ(config->router.score, RouterConfig::Score::kSoftmax);
  EXPECT_EQ(config->router.group_score, RouterConfig::GroupScore::kNone);
  EXPECT_FALSE(config->router.has_correction_bias);
  EXPECT_EQ(config->shared_intermediate_size(), 64);
}

TEST(Config, ReadsQwen3Moe) {
  const auto config = load_config(golden("qwen3moe-tiny-bf16"));
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->attention, AttentionKind::kGqa);
  EXPECT_EQ(config->head_dim, 32);
  EXPECT_EQ(config->num_kv_heads, 2);
  EXPECT_TRUE(config->router.renormalise);
  EXPECT_EQ(config->num_shared_experts, 0);
}

TEST(Config, TakesKimiK2AsDeepSeekV3) {
  EXPECT_EQ(message_with("model_type", "kimi_k2"), "accepted");
}

// Everything that Kimi-K2-Thinking's config.json says about it.
constexpr std::string_view kKimiK2Int4 = R"({"quant_method": "compressed-tensors",
    "format": "pack-quantized", "kv_cache_scheme": null, "quantization_status": "compressed",
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*",
               "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
    "config_groups": {"group_0": {"input_activations": null, "output_activations": null,
      "targets": ["Linear"], "weights": {"actorder": null, "block_structure": null,
        "dynamic": false, "group_size": 32, "num_bits": 4, "observer": "minmax",
        "observer_kwargs": {}, "strategy": "group", "symmetric": true, "type": "int"}}}})";

TEST(Config, TakesTheInt4OfKimiK2AndRefusesOtherKindsByName) {
  Json json = golden_config("dsv3-tiny-bf16");
  json.set("quantization_config", *parse_json(kKimiK2Int4));
  const auto config = parse_config(json.dump());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->quantization, Quantization::kInt4Pack);
  const auto message_of = [](std::string_view from, std::string_view to) {
    std::string text(kKimiK2Int4);
    text.replace(text.find(from), from.size(), to);
    return message_with("quantization_config", *parse_json(text));
  };
  EXPECT_THAT(message_of(R"("group_size": 32)", R"("group_size": 128)"), HasSubstr("group_size"));
  EXPECT_THAT(message_of(R"("num_bits": 4)", R"("num_bits": 8)"), HasSubstr("num_bits"));
  EXPECT_THAT(message_of(R"("symmetric": true)", R"("symmetric": false)"), HasSubstr("symmetric"));
  EXPECT_THAT(message_of(R"("actorder": null)", R"("actorder": "group")"), HasSubstr("actorder"));
  EXPECT_THAT(message_of("pack-quantized", "marlin-24"), HasSubstr("marlin-24"));
}

TEST(Config, ReadsTheSpellingOfTransformersFive) {
  Json json = golden_config("dsv3-tiny-bf16");
  Json rope = *json.find("rope_scaling");
  rope.set("rope_type", "yarn").set("rope_theta", 50000.0);
  rope.erase("type");
  json.set("rope_parameters", rope);
  json.erase("rope_scaling");
  json.erase("rope_theta");
  const auto config = parse_config(json.dump());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_TRUE(config->rope.is_yarn);
  EXPECT_EQ(config->rope.theta, 50000);
  EXPECT_EQ(config->rope.factor, 40);
}

TEST(Config, NamesTheKeyAndTheListOfModelsItKnows) {
  const std::string text = message_with("model_type", "llama9");
  EXPECT_THAT(text, HasSubstr("model_type"));
  EXPECT_THAT(text, HasSubstr("llama9"));
  EXPECT_THAT(text, HasSubstr("deepseek_v3"));
  EXPECT_THAT(text, HasSubstr("qwen3_moe"));
}

TEST(Config, NamesTheKeyThatIsMissingWrongOrOutOfRange) {
  EXPECT_THAT(message_with("hidden_size", nullptr), HasSubstr("'hidden_size': missing"));
  EXPECT_THAT(message_with("hidden_size", "sixteen"), HasSubstr("'hidden_size': an integer"));
  EXPECT_THAT(message_with("hidden_size", 2.5), HasSubstr("'hidden_size': an integer"));
  EXPECT_THAT(message_with("hidden_size", -1), HasSubstr("'hidden_size': -1 is outside"));
  EXPECT_THAT(message_with("vocab_size", int64_t{1} << 40), HasSubstr("'vocab_size'"));
  EXPECT_THAT(message_with("num_hidden_layers", 1000000000), HasSubstr("'num_hidden_layers'"));
  EXPECT_THAT(message_with("kv_lora_rank", nullptr), HasSubstr("'kv_lora_rank': missing"));
  EXPECT_THAT(message_with("rms_norm_eps", "small"), HasSubstr("'rms_norm_eps'"));
  EXPECT_THAT(message_with("qk_rope_head_dim", 15), HasSubstr("'qk_rope_head_dim': must be even"));
  EXPECT_THAT(message_with("eos_token_id", "end"), HasSubstr("'eos_token_id'"));
  EXPECT_THAT(message_with("intermediate_size", math::kInputsMax + 1),
              HasSubstr("'intermediate_size': makes a matrix of 131073 inputs"));
  EXPECT_THAT(message_with("hidden_size", math::kInputsMax), HasSubstr("'hidden_size': makes"));
  // More than a placement can hold.
  EXPECT_THAT(message_with("n_routed_experts", ep::kExpertsMax + 1),
              HasSubstr("'n_routed_experts'"));
}

TEST(Config, RefusesWhatIsNotImplementedByName) {
  EXPECT_THAT(message_with("attention_bias", true), HasSubstr("'attention_bias'"));
  EXPECT_THAT(message_with("hidden_act", "gelu"), HasSubstr("'hidden_act': 'gelu'"));
  EXPECT_THAT(message_with("topk_method", "random"), HasSubstr("'topk_method': 'random'"));
  EXPECT_THAT(message_with("rope_interleave", false), HasSubstr("'rope_interleave'"));
  Json rope;
  rope.set("type", "spiral");
  EXPECT_THAT(message_with("rope_scaling", rope), HasSubstr("'rope_scaling.type': 'spiral'"));
  Json quant;
  quant.set("quant_method", "abacus");
  EXPECT_THAT(message_with("quantization_config", quant),
              HasSubstr("'quantization_config.quant_method': 'abacus'"));
}

TEST(Config, RefusesRoutingThatCannotBeDone) {
  EXPECT_THAT(message_with("n_group", 3), HasSubstr("'n_group': 3 does not divide"));
  EXPECT_THAT(message_with("topk_group", 5), HasSubstr("'topk_group': 5 is more than n_group"));
  EXPECT_THAT(message_with("num_experts_per_tok", 9), HasSubstr("'num_experts_per_tok': 9"));
}

TEST(Config, RefusesTextThatIsNoObject) {
  EXPECT_THAT(message(parse_config("")), HasSubstr("config.json: invalid JSON"));
  EXPECT_THAT(message(parse_config("[1]")), HasSubstr("an object is wanted"));
  EXPECT_THAT(message(parse_config(R"({"a":)")), HasSubstr("config.json: invalid JSON"));
}

TEST(GenerationConfig, ReadsDefaultsAndEndTokensInBothForms) {
  const auto one = parse_generation_config(R"({"eos_token_id": 7, "temperature": 0.6})");
  ASSERT_TRUE(one);
  EXPECT_EQ(one->eos_tokens, std::vector{TokenId{7}});
  EXPECT_EQ(one->temperature, 0.6);
  EXPECT_EQ(one->top_p, std::nullopt);
  const auto list = parse_generation_config(R"({"eos_token_id": [7, 9], "top_k": 20})");
  ASSERT_TRUE(list);
  EXPECT_EQ(list->eos_tokens, (std::vector{TokenId{7}, TokenId{9}}));
  EXPECT_EQ(list->top_k, 20);
}

TEST(GenerationConfig, IsEmptyWhenTheFileIsMissing) {
  const auto config = load_generation_config(golden("bad/ok-reference"));
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_TRUE(config->eos_tokens.empty());
}

TEST(GenerationConfig, NamesABadKey) {
  const auto config = parse_generation_config(R"({"top_p": 7})");
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().message, HasSubstr("generation_config.json: key 'top_p'"));
}

}  // namespace
}  // namespace wideep::model
