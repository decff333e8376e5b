#include "engine/sampler.h"

#include "base/check.h"
#include "base/random.h"
#include "base/rounding.h"
#include "engine/sampler_rules.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>

namespace wideep::engine {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr float kNoPower = -200;  // its exponential is 0

bool all_finite(std::span<const float> values) {
  constexpr uint32_t kExponent = 0x7F800000;
  uint32_t num_bad = 0;  // counted, not left early: that vectorises
  for (const float value : values)
    num_bad += (std::bit_cast<uint32_t>(value) & kExponent) == kExponent ? 1 : 0;
  return num_bad == 0;
}

// These count and add without branches, so that they vectorise.
uint32_t count_from(std::span<const float> values, float least) {
  uint32_t count = 0;
  for (const float value : values)
    count += value >= least ? 1 : 0;
  return count;
}

float largest(std::span<const float> values) {
  float max = values[0];
  for (const float value : values)
    max = value > max ? value : max;
  return max;
}

uint64_t sum_of(std::span<const float> weights) {
  double sums[4] = {};  // exact: below 2^53
  for (size_t i = 0; i < weights.size(); i += 4)
    for (size_t lane = 0; lane < 4; ++lane)
      sums[lane] += static_cast<double>(weights[i + lane]);
  return static_cast<uint64_t>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// The sums of weights by magnitude: a class has the same exponent and three bits behind it.
class WeightClasses {
 public:
  explicit WeightClasses(std::span<const float> weights) {
    for (const float weight : weights)
      sums_[class_of(weight)] += static_cast<uint64_t>(weight);
  }

  uint64_t total() const { return std::accumulate(sums_.begin(), sums_.end(), uint64_t{0}); }

  struct Found {
    uint64_t sum;  // of the classes above
    float least;   // the class's bounds
    float bound;
  };

  // The class in which the sum, from the heaviest on, reaches `wanted`, or the heaviest at all.
  Found find(uint64_t wanted) const {
    uint64_t sum = 0;
    size_t last = kClasses - 1;
    while (sums_[last] == 0 || sum + sums_[last] < wanted)
      sum += sums_[last--];
    return {.sum = sum, .least = least_of(last), .bound = least_of(last + 1)};
  }

 private:
  static constexpr uint32_t kFirst = (127U << 3) - 1;       // class 0: nothing
  static constexpr size_t kClasses = ((41U + 1) << 3) + 1;  // up to 2^41

  static size_t class_of(float weight) {
    const uint32_t bits = std::bit_cast<uint32_t>(weight) >> 20;
    return bits <= kFirst ? 0 : bits - kFirst;
  }

  static float least_of(size_t class_index) {
    return std::bit_cast<float>((static_cast<uint32_t>(class_index) + kFirst) << 20);
  }

  std::array<uint64_t, kClasses> sums_{};
};

bool changes_logits(const SampleInput& input) {
  return !input.banned.empty() || !input.params.allowed_tokens.empty() ||
         !input.params.logit_bias.empty() || !input.history.counts().empty();
}

bool is_within(float value, float least, float most) {
  return value >= least && value <= most;  // false for NaN
}

Status check_tokens(const SamplingParams& params, int64_t vocab_size) {
  const auto is_known = [&](TokenId token) {
    return index(token) >= 0 && index(token) < vocab_size;
  };
  for (const TokenId token : params.allowed_tokens)
    if (!is_known(token))
      return invalid_argument("allowed_token_ids: {} is not in the vocabulary", index(token));
  for (const auto& [token, bias] : params.logit_bias) {
    if (!is_known(token))
      return invalid_argument("logit_bias: {} is not in the vocabulary", index(token));
    if (!is_within(bias, -100, 100))
      return invalid_argument("logit_bias of {}: {} is not in [-100, 100]", index(token), bias);
  }
  return {};
}

}  // namespace

Status check_sampling(const SamplingParams& params, int64_t vocab_size) {
  struct Range {
    std::string_view name;
    float value;
    float least;
    float most;
  };

  constexpr float kSmall = std::numeric_limits<float>::min();
  const Range ranges[] = {
      {"temperature", params.temperature, 0, 100},
      {"top_p", params.top_p, kSmall, 1},
      {"min_p", params.min_p, 0, 1},
      {"repetition_penalty", params.repetition_penalty, 0x1p-20F, 0x1p20F},
      {"frequency_penalty", params.frequency_penalty, -2, 2},
      {"presence_penalty", params.presence_penalty, -2, 2},
  };
  for (const Range& range : ranges)
    if (!is_within(range.value, range.least, range.most))
      return invalid_argument("{} is {}, allowed is {} to {}", range.name, range.value, range.least,
                              range.most);
  if (params.top_k < -1)
    return invalid_argument("top_k is {}, allowed is -1 (off), 0 (off) or more", params.top_k);
  if (params.logprobs && (*params.logprobs < 0 || *params.logprobs > kLogprobsMax))
    return invalid_argument("logprobs is {}, allowed is 0 to {}", *params.logprobs, kLogprobsMax);
  return check_tokens(params, vocab_size);
}

TokenHistory::TokenHistory(const SamplingParams& params, std::span<const TokenId> prompt)
    : is_needed_(params.repetition_penalty != 1.0F || params.frequency_penalty != 0.0F ||
                 params.presence_penalty != 0.0F) {
  if (params.repetition_penalty == 1.0F) return;
  for (const TokenId token : prompt)
    counts_.try_emplace(token, 0);
}

void TokenHistory::append(TokenId generated) {
  if (is_needed_) ++counts_[generated];
}

Sampler::Sampler(const math::Kernels& kernels, int64_t vocab_size)
    : kernels_(kernels), adjusted_(static_cast<size_t>(vocab_size)) {
  const size_t num_strides = divide_up(adjusted_.size(), kStride);
  live_.reserve(num_strides);
  for (std::vector<float>* entries : {&values_, &weights_, &scratch_})
    entries->reserve(num_strides * kStride);
}

Result<GeneratedToken> Sampler::sample(std::span<const float> logits, const SampleInput& input) {
  WD_CHECK(logits.size() == adjusted_.size());
  if (!all_finite(logits))
    return error(ErrorCode::kDataLoss, "numerics: a logit is not a finite number");
  const std::span<const float> x = changes_logits(input) ? adjust(logits, input) : logits;
  float max = 0;
  const int64_t best = kernels_.argmax(x.data(), static_cast<int64_t>(x.size()), &max);
  if (max == kMinusInfinity) return invalid_argument("no token is left to choose from");
  const bool is_greedy = input.params.temperature < kGreedyTemperature;
  if (!std::isfinite(is_greedy ? max : max / input.params.temperature))
    return error(ErrorCode::kDataLoss, "numerics: a logit of {} cannot be scaled", max);

  GeneratedToken chosen;
  chosen.token = is_greedy ? TokenId{static_cast<int32_t>(best)} : draw(x, max, input);
  if (input.params.logprobs) add_logprobs(logits, *input.params.logprobs, chosen);
  return chosen;
}

std::span<const float> Sampler::adjust(std::span<const float> logits, const SampleInput& input) {
  if (input.params.allowed_tokens.empty()) {
    std::ranges::copy(logits, adjusted_.begin());
  } else {
    std::ranges::fill(adjusted_, kMinusInfinity);
    for (const TokenId token : input.params.allowed_tokens)
      adjusted_[index(token)] = logits[index(token)];
  }
  for (const TokenId token : input.banned)
    adjusted_[index(token)] = kMinusInfinity;
  for (const auto& [token, bias] : input.params.logit_bias)
    adjusted_[index(token)] += bias;
  for (const auto& [token, count] : input.history.counts())
    adjusted_[index(token)] = penalised(adjusted_[index(token)], count, input.params);
  return adjusted_;
}

TokenId Sampler::draw(std::span<const float> logits, float max, const SampleInput& input) {
  const SamplingParams& params = input.params;
  weigh(logits, max, params.temperature);
  if (params.min_p > 0) keep_min_p(params.min_p);
  if (params.top_k > 0) keep_top_k(static_cast<size_t>(params.top_k));
  if (params.top_p < 1) keep_top_p(params.top_p);
  return pick(params.seed, input.position);
}

void Sampler::weigh(std::span<const float> logits, float max, float temperature) {
  const float cut = candidate_cut(max, temperature);
  const float top = max / temperature;
  live_.clear();
  for (size_t begin = 0; begin < logits.size(); begin += kStride) {
    const auto stride = logits.subspan(begin, std::min(kStride, logits.size() - begin));
    if (count_from(stride, cut) > 0) live_.push_back(static_cast<int32_t>(begin / kStride));
  }
  const size_t size = live_.size() * kStride;
  values_.resize(size);
  weights_.resize(size);
  scratch_.resize(size);
  for (size_t s = 0; s < live_.size(); ++s) {
    const size_t begin = static_cast<size_t>(live_[s]) * kStride;
    const auto stride = logits.subspan(begin, std::min(kStride, logits.size() - begin));
    float* value = &values_[s * kStride];
    float* power = &scratch_[s * kStride];
    for (size_t i = 0; i < stride.size(); ++i) {
      value[i] = stride[i] / temperature;
      power[i] = stride[i] >= cut ? value[i] - top : kNoPower;
    }
    std::fill(value + stride.size(), value + kStride, kMinusInfinity);
    std::fill(power + stride.size(), power + kStride, kNoPower);
  }
  kernels_.exp(scratch_.data(), static_cast<int64_t>(size), weights_.data());
  for (float& weight : weights_)
    weight = whole_weight(weight);
}

void Sampler::keep_min_p(float p) {
  const float least = p * std::ranges::max(weights_);
  for (float& weight : weights_)
    weight = weight < least ? 0 : weight;
}

// The k-th largest of the strides' maxima is a lower bound of the k-th largest value: few values
// are left to select from.
void Sampler::keep_top_k(size_t k) {
  const auto select = [&] {
    std::ranges::nth_element(scratch_, scratch_.begin() + (k - 1), std::greater());
    return scratch_[k - 1];
  };
  scratch_.clear();
  for (size_t begin = 0; begin < values_.size(); begin += kStride)
    scratch_.push_back(largest(std::span(values_).subspan(begin, kStride)));
  const float bound = k <= scratch_.size() ? select() : kMinusInfinity;
  scratch_.clear();
  for (size_t begin = 0; begin < values_.size(); begin += kStride) {
    const auto stride = std::span(values_).subspan(begin, kStride);
    if (count_from(stride, bound) == 0) continue;
    std::ranges::copy_if(stride, std::back_inserter(scratch_),
                         [&](float value) { return value >= bound; });
  }
  if (k > scratch_.size()) return;
  const float least = select();
  for (size_t i = 0; i < values_.size(); ++i)
    weights_[i] = values_[i] < least ? 0 : weights_[i];
}

// Finds the last token that is kept without sorting all: sums by the magnitude of the weight say in
// which class it is, and only that class is sorted.
void Sampler::keep_top_p(float p) {
  const WeightClasses classes(weights_);
  const uint64_t wanted = top_p_weight(p, classes.total());
  auto [sum, least, bound] = classes.find(wanted);  // the last token's weight is in [least, bound)
  std::vector<size_t> entries;
  for (size_t begin = 0; begin < weights_.size(); begin += kStride) {
    const auto stride = std::span(weights_).subspan(begin, kStride);
    for (float& weight : stride)
      weight = weight < least ? 0 : weight;
    if (count_from(stride, least) == count_from(stride, bound)) continue;
    for (size_t i = begin; i < begin + kStride; ++i)
      if (weights_[i] >= least && weights_[i] < bound) entries.push_back(i);
  }
  std::ranges::sort(entries, [&](size_t a, size_t b) {
    return weights_[a] != weights_[b] ? weights_[a] > weights_[b] : a < b;
  });
  for (const size_t i : entries) {
    const bool is_kept = sum == 0 || sum < wanted;
    sum += static_cast<uint64_t>(weights_[i]);
    if (!is_kept) weights_[i] = 0;
  }
}

TokenId Sampler::pick(int64_t seed, int64_t position) const {
  uint64_t total = 0;
  for (size_t begin = 0; begin < weights_.size(); begin += kStride)
    total += sum_of(std::span(weights_).subspan(begin, kStride));
  uint64_t point = uniform_below(total, seed, position);
  for (size_t begin = 0; begin < weights_.size(); begin += kStride) {
    const uint64_t sum = sum_of(std::span(weights_).subspan(begin, kStride));
    if (point >= sum) {
      point -= sum;
      continue;
    }
    for (size_t i = begin;; ++i) {
      const auto weight = static_cast<uint64_t>(weights_[i]);
      if (point < weight) return token_of(i);
      point -= weight;
    }
  }
  WD_CHECK(total == 0);  // the weights add up to total,
  WD_CHECK(total > 0);   // and the most likely token has one
  return {};
}

TokenId Sampler::token_of(size_t i) const {
  return TokenId{live_[i / kStride] * static_cast<int32_t>(kStride) +
                 static_cast<int32_t>(i % kStride)};
}

void Sampler::add_logprobs(std::span<const float> logits, int32_t count, GeneratedToken& token) {
  const float total = kernels_.log_sum_exp(logits.data(), static_cast<int64_t>(logits.size()));
  token.logprob = logits[index(token.token)] - total;
  const auto wanted = std::min(static_cast<size_t>(count), logits.size());
  std::vector<TokenLogprob>& top = token.top;
  const auto consider = [&](size_t i) {
    if (top.size() == wanted && logits[i] <= top.back().logprob) return;
    if (top.size() == wanted) top.pop_back();
    const auto place = std::ranges::find_if(
        top, [&](const TokenLogprob& other) { return other.logprob < logits[i]; });
    top.insert(place, {.token = TokenId{static_cast<int32_t>(i)}, .logprob = logits[i]});
  };
  for (size_t begin = 0; wanted > 0 && begin < logits.size(); begin += kStride) {
    const size_t end = std::min(begin + kStride, logits.size());
    const bool is_full = top.size() == wanted;
    if (is_full && largest(logits.subspan(begin, end - begin)) <= top.back().logprob) continue;
    for (size_t i = begin; i < end; ++i)
      consider(i);
  }
  for (TokenLogprob& entry : top)
    entry.logprob -= total;
}

}  // namespace wideep::engine
