#include "model/router.h"

#include "base/check.h"

#include <algorithm>
#include <array>
#include <limits>

namespace wideep::model {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

float largest(const math::Kernels& kernels, std::span<const float> values) {
  float max = 0;
  kernels.argmax(values.data(), static_cast<int64_t>(values.size()), &max);
  return max;
}

float sum_of_top_two(std::span<const float> values) {
  float first = kNever;
  float second = kNever;
  for (const float value : values) {
    if (value > first) {
      second = first;
      first = value;
    } else if (value > second) {
      second = value;
    }
  }
  return values.size() == 1 ? first : first + second;
}

// Bars the experts of all groups but the best ones from the choice.
void keep_best_groups(const math::Kernels& kernels,
                      const RouterConfig& config,
                      std::span<float> choice) {
  const int64_t size = config.num_experts / config.num_groups;
  WD_CHECK(config.num_groups <= kRouterGroupsMax);
  std::array<float, kRouterGroupsMax> scores;
  for (int64_t g = 0; g < config.num_groups; ++g) {
    const std::span<float> group =
        choice.subspan(static_cast<size_t>(g * size), static_cast<size_t>(size));
    scores[static_cast<size_t>(g)] = config.group_score == RouterConfig::GroupScore::kMax
                                         ? largest(kernels, group)
                                         : sum_of_top_two(group);
  }
  std::array<bool, kRouterGroupsMax> kept{};
  for (int64_t i = 0; i < config.num_groups_kept; ++i) {
    float max = 0;
    const auto best = static_cast<size_t>(kernels.argmax(scores.data(), config.num_groups, &max));
    kept[best] = true;
    scores[best] = kNever;
  }
  for (int64_t g = 0; g < config.num_groups; ++g) {
    if (!kept[static_cast<size_t>(g)]) std::fill_n(choice.begin() + g * size, size, kNever);
  }
}

}  // namespace

void choose_experts(const math::Kernels& kernels,
                    const RouterConfig& config,
                    std::span<const float> bias,
                    const TokenChoice& token) {
  const auto& [scores, choice, experts, weights] = token;
  const int64_t count = config.num_experts;
  if (config.score == RouterConfig::Score::kSigmoid) {
    kernels.sigmoid(scores.data(), count, scores.data());
  } else {
    kernels.softmax(scores.data(), count);
  }
  std::ranges::copy(scores, choice.begin());
  if (config.has_correction_bias) kernels.add(bias.data(), count, choice.data());
  if (config.group_score != RouterConfig::GroupScore::kNone) {
    keep_best_groups(kernels, config, choice);
  }
  float sum = 0;
  for (size_t k = 0; k < experts.size(); ++k) {
    float max = 0;
    const auto best = static_cast<size_t>(kernels.argmax(choice.data(), count, &max));
    choice[best] = kNever;
    experts[k] = ExpertId{static_cast<int32_t>(best)};
    weights[k] = scores[best];
    sum += scores[best];
  }
  const auto scale = static_cast<float>(config.scale);
  for (float& weight : weights) {
    if (config.renormalise) weight /= sum + 1e-20F;
    weight *= scale;
  }
}

RouterScratch::RouterScratch(const Compute& compute_in,
                             Projector& projector_in,
                             const RouterConfig& config_in)
    : compute(compute_in),
      projector(projector_in),
      config(config_in),
      logits(compute_in.rows_max, config_in.num_experts),
      scores(compute_in.rows_max, config_in.num_experts),
      choice(compute_in.rows_max, config_in.num_experts),
      experts(static_cast<size_t>(compute_in.rows_max * config_in.top_k)),
      weights(experts.size()) {}

ep::Routing Router::route(MatrixView<const float> h) {
  const int64_t top_k = s_.config.top_k;
  const MatrixView<float> logits = s_.logits.view().slice(0, h.rows);
  s_.projector.multiply_exact(w_.gate, h, logits);
  s_.compute.for_rows(h.rows, [&](int64_t r) {
    const std::span<float> scores = s_.scores.row(r);
    std::ranges::copy(logits.row(r), scores.begin());
    const auto first = static_cast<size_t>(r * top_k);
    const auto count = static_cast<size_t>(top_k);
    choose_experts(s_.compute.kernels, s_.config, w_.bias,
                   {.scores = scores,
                    .scratch = s_.choice.row(r),
                    .experts = std::span(s_.experts).subspan(first, count),
                    .weights = std::span(s_.weights).subspan(first, count)});
  });
  const auto pairs = static_cast<size_t>(h.rows * top_k);
  return {.num_tokens = h.rows,
          .top_k = top_k,
          .experts = std::span(s_.experts).first(pairs),
          .weights = std::span(s_.weights).first(pairs)};
}

}  // namespace wideep::model
