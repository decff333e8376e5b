#include "engine/sampler.h"

#include "base/check.h"
#include "base/random.h"
#include "engine/sampler_rules.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace wideep::engine {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

bool all_finite(std::span<const float> values) {
  constexpr uint32_t kExponent = 0x7F800000;
  uint32_t num_bad = 0;  // counted, not left early: that vectorises
  for (const float value : values)
    num_bad += (std::bit_cast<uint32_t>(value) & kExponent) == kExponent ? 1 : 0;
  return num_bad == 0;
}

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
  values_.reserve(adjusted_.size());
  weights_.reserve(adjusted_.size());
  candidates_.reserve(adjusted_.size());
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
  gather(logits, max, params.temperature);
  if (params.min_p > 0) keep_min_p(params.min_p);
  if (params.top_k > 0) keep_top_k(params.top_k);
  if (params.top_p < 1) keep_top_p(params.top_p);

  uint64_t total = 0;
  for (const Candidate& candidate : candidates_)
    total += candidate.weight;
  uint64_t point = uniform_below(total, params.seed, input.position);
  for (const Candidate& candidate : candidates_) {
    if (point < candidate.weight) return TokenId{candidate.token};
    point -= candidate.weight;
  }
  WD_CHECK(false);  // the weights add up to total
  return {};
}

// Candidates: the tokens that have a weight.
void Sampler::gather(std::span<const float> logits, float max, float temperature) {
  candidates_.clear();
  values_.clear();
  const float cut = candidate_cut(max, temperature);
  constexpr size_t kStride = 64;  // most strides have no candidate: look at their maximum first
  for (size_t begin = 0; begin < logits.size(); begin += kStride) {
    const auto stride = logits.subspan(begin, std::min(kStride, logits.size() - begin));
    uint32_t num_above = 0;
    for (const float x : stride)
      num_above += x >= cut ? 1 : 0;
    for (size_t i = 0; num_above > 0 && i < stride.size(); ++i) {
      if (stride[i] < cut) continue;
      candidates_.push_back(
          {.token = static_cast<int32_t>(begin + i), .value = stride[i] / temperature});
      values_.push_back(candidates_.back().value - max / temperature);
    }
  }
  weights_.resize(values_.size());
  kernels_.exp(values_.data(), static_cast<int64_t>(values_.size()), weights_.data());
  for (size_t i = 0; i < candidates_.size(); ++i)
    candidates_[i].weight = integer_weight(weights_[i]);
  std::erase_if(candidates_, [](const Candidate& candidate) { return candidate.weight == 0; });
}

void Sampler::keep_min_p(float p) {
  const auto heaviest = std::ranges::max(candidates_, {}, &Candidate::weight).weight;
  const float least = p * weight_of(heaviest);
  std::erase_if(candidates_, [&](const Candidate& c) { return weight_of(c.weight) < least; });
}

void Sampler::keep_top_k(int64_t k) {
  if (k >= static_cast<int64_t>(candidates_.size())) return;
  values_.clear();
  for (const Candidate& candidate : candidates_)
    values_.push_back(candidate.value);
  std::ranges::nth_element(values_, values_.begin() + (k - 1), std::greater());
  const float least = values_[k - 1];
  std::erase_if(candidates_, [&](const Candidate& candidate) { return candidate.value < least; });
}

// The kept run is usually short: brings ever longer runs to the front instead of sorting all.
void Sampler::keep_top_p(float p) {
  uint64_t total = 0;
  for (const Candidate& candidate : candidates_)
    total += candidate.weight;
  const uint64_t wanted = top_p_weight(p, total);
  const auto heavier = [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
  };
  uint64_t sum = 0;
  size_t num_kept = 0;
  for (size_t run = 64; num_kept < candidates_.size() && (num_kept == 0 || sum < wanted);
       run *= 4) {
    const size_t end = std::min(num_kept + run, candidates_.size());
    const auto first = candidates_.begin() + static_cast<ptrdiff_t>(num_kept);
    std::partial_sort(first, candidates_.begin() + static_cast<ptrdiff_t>(end), candidates_.end(),
                      heavier);
    while (num_kept < end && (num_kept == 0 || sum < wanted))
      sum += candidates_[num_kept++].weight;
  }
  candidates_.resize(num_kept);
  std::ranges::sort(candidates_, {}, &Candidate::token);
}

void Sampler::add_logprobs(std::span<const float> logits, int32_t count, GeneratedToken& token) {
  const float total = kernels_.log_sum_exp(logits.data(), static_cast<int64_t>(logits.size()));
  token.logprob = logits[index(token.token)] - total;
  const auto wanted = std::min(static_cast<size_t>(count), logits.size());
  std::vector<TokenLogprob>& top = token.top;
  for (size_t i = 0; wanted > 0 && i < logits.size(); ++i) {
    if (top.size() == wanted && logits[i] <= top.back().logprob) continue;
    if (top.size() == wanted) top.pop_back();
    const auto place = std::ranges::find_if(
        top, [&](const TokenLogprob& other) { return other.logprob < logits[i]; });
    top.insert(place, {.token = TokenId{static_cast<int32_t>(i)}, .logprob = logits[i]});
  }
  for (TokenLogprob& entry : top)
    entry.logprob -= total;
}

}  // namespace wideep::engine
