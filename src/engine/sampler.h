// Picks the next token of a sequence from its logits, with vLLM's parameters in vLLM's order:
//
//   allowed_tokens, banned tokens (min_tokens), logit_bias, penalties, temperature,
//   min_p, top_k, top_p, draw
//
// A draw is a pure function of (logits, parameters, history, seed, position), where position counts
// the generated tokens: the same wherever, whenever and beside whomever it is made. To make it
// exact in any order of summation a token's weight is an integer: exp((x - max) / temperature) in
// units of 2^-40; what is smaller, or farther from the maximum than 28.5 temperatures, weighs
// nothing.
//   top_k  keeps the k largest; those equal to the k-th stay.
//   top_p  keeps the shortest run of the heaviest tokens (equal ones by index) whose weights reach
//          top_p of the total; at least one.
//   draw   a uniform integer below the total, looked up in the running sum in order of index.
//
// Log-probabilities are those of the raw logits. Thread: one at a time (it has scratch).
#pragma once

#include "base/ids.h"
#include "base/result.h"
#include "engine/request.h"
#include "math/kernels.h"

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace wideep::engine {

// Below this a temperature means: the most likely token.
inline constexpr float kGreedyTemperature = 1e-5F;
// Alternatives that can be reported beside a token.
inline constexpr int32_t kLogprobsMax = 128;

// kInvalidArgument with a text for the client: a value out of its range, an unknown token.
Status check_sampling(const SamplingParams& params, int64_t vocab_size);

// What a sequence has seen so far, as far as its penalties need it.
class TokenHistory {
 public:
  TokenHistory(const SamplingParams& params, std::span<const TokenId> prompt);
  void append(TokenId generated);

  // [token] -> how often it was generated; 0 for one that is only in the prompt.
  const std::unordered_map<TokenId, int32_t>& counts() const { return counts_; }

 private:
  bool is_needed_;
  std::unordered_map<TokenId, int32_t> counts_;
};

struct SampleInput {
  const SamplingParams& params;
  const TokenHistory& history;
  std::span<const TokenId> banned;  // cannot come now
  int64_t position = 0;             // index of the token among the generated ones
};

class Sampler {
 public:
  Sampler(const math::Kernels& kernels, int64_t vocab_size);

  // kDataLoss: a logit is NaN or infinite ("numerics"). kInvalidArgument: no token is left.
  Result<GeneratedToken> sample(std::span<const float> logits, const SampleInput& input);

 private:
  std::span<const float> adjust(std::span<const float> logits, const SampleInput& input);
  TokenId draw(std::span<const float> logits, float max, const SampleInput& input);
  void weigh(std::span<const float> logits, float max, float temperature);
  void keep_min_p(float p);
  void keep_top_k(size_t k);
  void keep_top_p(float p);
  TokenId pick(int64_t seed, int64_t position) const;
  TokenId token_of(size_t i) const;
  void add_logprobs(std::span<const float> logits, int32_t count, GeneratedToken& token);

  // The vocabulary is cut into strides; only those with a token that weighs anything are looked at
  // again. Entry i of the arrays belongs to token i % kStride of stride live_[i / kStride].
  static constexpr size_t kStride = 64;

  const math::Kernels& kernels_;
  std::vector<float> adjusted_;  // [vocab]
  std::vector<int32_t> live_;    // ascending
  std::vector<float> values_;    // logit / temperature
  std::vector<float> weights_;   // whole numbers; 0: out
  std::vector<float> scratch_;
};

}  // namespace wideep::engine
