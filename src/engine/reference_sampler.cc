#include "engine/reference_sampler.h"

#include "engine/sampler_rules.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace wideep::engine {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

std::vector<float> adjusted_logits(std::span<const float> logits, const SampleInput& input) {
  const SamplingParams& params = input.params;
  std::vector<float> x(logits.begin(), logits.end());
  for (size_t token = 0; token < x.size(); ++token) {
    const auto id = TokenId{static_cast<int32_t>(token)};
    const bool is_allowed =
        params.allowed_tokens.empty() || std::ranges::count(params.allowed_tokens, id) > 0;
    if (!is_allowed || std::ranges::count(input.banned, id) > 0) x[token] = kMinusInfinity;
    for (const auto& [biased, bias] : params.logit_bias)
      if (biased == id) x[token] += bias;
    const auto seen = input.history.counts().find(id);
    if (seen != input.history.counts().end()) x[token] = penalised(x[token], seen->second, params);
  }
  return x;
}

// Weight of every token, 0 for those that are out.
std::vector<uint64_t> integer_weights(const math::Kernels& kernels,
                                      std::span<const float> x,
                                      float temperature) {
  const float max = std::ranges::max(x);
  std::vector<uint64_t> weights(x.size());
  for (size_t token = 0; token < x.size(); ++token) {
    if (x[token] < candidate_cut(max, temperature)) continue;
    const float value = x[token] / temperature - max / temperature;
    float weight = 0;
    kernels.exp(&value, 1, &weight);
    weights[token] = static_cast<uint64_t>(whole_weight(weight));
  }
  return weights;
}

void apply_min_p(std::vector<uint64_t>& weights, float min_p) {
  const float least = min_p * static_cast<float>(std::ranges::max(weights));
  for (uint64_t& weight : weights)
    if (static_cast<float>(weight) < least) weight = 0;
}

void apply_top_k(std::vector<uint64_t>& weights,
                 std::span<const float> x,
                 float temperature,
                 int64_t k) {
  std::vector<float> values;
  for (size_t token = 0; token < x.size(); ++token)
    if (weights[token] > 0) values.push_back(x[token] / temperature);
  if (k >= static_cast<int64_t>(values.size())) return;
  std::ranges::sort(values, std::greater());
  for (size_t token = 0; token < x.size(); ++token)
    if (x[token] / temperature < values[k - 1]) weights[token] = 0;
}

void apply_top_p(std::vector<uint64_t>& weights, float top_p) {
  const uint64_t total = std::accumulate(weights.begin(), weights.end(), uint64_t{0});
  std::vector<size_t> order(weights.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, [&](size_t a, size_t b) {
    return weights[a] != weights[b] ? weights[a] > weights[b] : a < b;
  });
  uint64_t sum = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const bool is_kept = i == 0 || sum < top_p_weight(top_p, total);
    sum += weights[order[i]];
    if (!is_kept) weights[order[i]] = 0;
  }
}

}  // namespace

Result<TokenId> reference_sample(const math::Kernels& kernels,
                                 std::span<const float> logits,
                                 const SampleInput& input) {
  for (const float logit : logits)
    if (!std::isfinite(logit)) return error(ErrorCode::kDataLoss, "numerics");
  const SamplingParams& params = input.params;
  const std::vector<float> x = adjusted_logits(logits, input);
  const auto best = std::ranges::max_element(x);
  if (*best == kMinusInfinity) return invalid_argument("no token is left");
  if (params.temperature < kGreedyTemperature)
    return TokenId{static_cast<int32_t>(best - x.begin())};

  std::vector<uint64_t> weights = integer_weights(kernels, x, params.temperature);
  if (params.min_p > 0) apply_min_p(weights, params.min_p);
  if (params.top_k > 0) apply_top_k(weights, x, params.temperature, params.top_k);
  if (params.top_p < 1) apply_top_p(weights, params.top_p);

  const uint64_t total = std::accumulate(weights.begin(), weights.end(), uint64_t{0});
  const uint64_t point = uniform_below(total, params.seed, input.position);
  uint64_t sum = 0;
  for (size_t token = 0; token < weights.size(); ++token) {
    sum += weights[token];
    if (point < sum) return TokenId{static_cast<int32_t>(token)};
  }
  return invalid_argument("no token is left");
}

}  // namespace wideep::engine
