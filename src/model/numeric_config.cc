#include "model/numeric_config.h"

#include <fmt/core.h>

#include <array>
#include <span>

namespace wideep::model {

std::string_view name(AttentionForm form) {
  static constexpr std::array<std::string_view, 3> kNames = {"absorbed", "direct", "by-role"};
  return kNames[static_cast<size_t>(form)];
}

std::string NumericConfig::describe() const {
  return fmt::format(
      "precision={} experts={} linears={} dispatch={} combine={} cache={} attention={} isa={} "
      "kernels={}",
      precision == math::Precision::kF32 ? "f32" : "mixed", math::name(expert_weights),
      linear_weights ? math::name(*linear_weights) : "stored", math::name(dispatch_format),
      math::name(combine_format), cache_format == math::CacheFormat::kF32 ? "f32" : "bf16",
      model::name(attention_form), math::name(isa), kernel_revision);
}

Digest NumericConfig::hash() const {
  const std::string text = describe();
  return sha256(std::as_bytes(std::span(text)));
}

}  // namespace wideep::model
