// The small rules that decide what is sampled, shared by the fast sampler and its reference twin:
// the two differ in how they walk the vocabulary, never in these.
#pragma once

#include "base/random.h"
#include "engine/request.h"

#include <cmath>
#include <cstdint>

namespace wideep::engine {

// Weights are whole numbers, one is 2^40; a float holds them exactly, as it held what was rounded
// down, and sums over 2^20 tokens fit 64 bits.
inline float whole_weight(float weight) {
  return std::trunc(weight * 0x1p40F);
}

// Logits below this weigh nothing: exp(-28.5) < 2^-40.
inline float candidate_cut(float max, float temperature) {
  return max - 28.5F * temperature;
}

// Repetition is over prompt and output, frequency and presence over the output.
inline float penalised(float logit, int32_t output_count, const SamplingParams& params) {
  logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
  logit -= params.frequency_penalty * static_cast<float>(output_count);
  return output_count > 0 ? logit - params.presence_penalty : logit;
}

// Sum of weights that top_p wants to reach.
inline uint64_t top_p_weight(float top_p, uint64_t total) {
  return static_cast<uint64_t>(static_cast<double>(top_p) * static_cast<double>(total));
}

// Uniform in [0, bound), to within 2^-64.
inline uint64_t uniform_below(uint64_t bound, int64_t seed, int64_t position) {
  const uint64_t bits = random_bits(static_cast<uint64_t>(seed), static_cast<uint64_t>(position));
  return static_cast<uint64_t>((static_cast<unsigned __int128>(bits) * bound) >> 64);
}

}  // namespace wideep::engine
