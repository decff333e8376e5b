#include "model/load_model.h"

namespace wideep::model {
namespace {

Result<AttentionForm> attention_form(const ModelConfig& config, const WeightOptions& options) {
  const bool is_mla = config.attention == AttentionKind::kMla;
  if (!is_mla && options.expanded_prompts) {
    return invalid_argument(
        "prompts in the expanded form (--mla-prompt-form) were asked for, but {} has no MLA",
        config.model_type);
  }
  if (!is_mla) return AttentionForm::kDirect;
  return options.expanded_prompts ? AttentionForm::kByRole : AttentionForm::kAbsorbed;
}

}  // namespace

Result<NumericConfig> resolve_numeric(const Checkpoint& checkpoint, const LoadOptions& options) {
  const bool f32 = options.weights.precision == math::Precision::kF32;
  NumericConfig numeric{.precision = options.weights.precision,
                        .linear_weights = options.weights.linear_format,
                        .cache_format = f32 ? math::CacheFormat::kF32 : math::CacheFormat::kBf16,
                        .isa = options.isa.value_or(math::detect_isa())};
  if (!math::is_supported(numeric.isa)) {
    return invalid_argument("this machine has no {}; its highest level is {}",
                            math::name(numeric.isa), math::name(math::detect_isa()));
  }
  WD_ASSIGN_OR_RETURN(numeric.attention_form, attention_form(checkpoint.config(), options.weights));
  WD_ASSIGN_OR_RETURN(numeric.expert_weights, resolve_expert_format(checkpoint, options.weights));
  const math::RowFormat input = math::input_format(numeric.expert_weights, numeric.precision);
  numeric.dispatch_format = options.dispatch_format.value_or(input);
  numeric.combine_format =
      options.combine_format.value_or(f32 ? math::RowFormat::kF32 : math::RowFormat::kBf16);
  if (numeric.combine_format != math::RowFormat::kF32 &&
      numeric.combine_format != math::RowFormat::kBf16) {
    return invalid_argument("combine format {} is not supported (supported: f32, bf16)",
                            math::name(numeric.combine_format));
  }
  return numeric;
}

Result<std::unique_ptr<DecoderModel>> load_model(const std::string& folder,
                                                 ThreadPool& pool,
                                                 const LoadOptions& options) {
  WD_ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                      Checkpoint::open(folder, {.draft = options.weights.draft}));
  return load_model(checkpoint, pool, options);
}

Result<std::unique_ptr<DecoderModel>> load_model(const Checkpoint& checkpoint,
                                                 ThreadPool& pool,
                                                 const LoadOptions& options) {
  if (options.block_tokens < math::kAttentionTile ||
      options.block_tokens > math::kAttentionPartition ||
      options.block_tokens % math::kAttentionTile != 0) {
    return invalid_argument("block size {} is no multiple of {} up to {}", options.block_tokens,
                            math::kAttentionTile, math::kAttentionPartition);
  }
  WD_ASSIGN_OR_RETURN(const NumericConfig numeric, resolve_numeric(checkpoint, options));
  WD_ASSIGN_OR_RETURN(std::string fingerprint, checkpoint.fingerprint());
  WD_ASSIGN_OR_RETURN(ModelWeights weights, load_weights(checkpoint, options.weights, pool));
  return std::make_unique<DecoderModel>(checkpoint.config(), numeric, std::move(fingerprint),
                                        std::move(weights), pool,
                                        DecoderOptions{.rows_max = options.rows_max,
                                                       .expert_rows_max = options.expert_rows_max,
                                                       .block_tokens = options.block_tokens,
                                                       .draft = options.weights.draft});
}

}  // namespace wideep::model
