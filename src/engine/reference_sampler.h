// The slow twin of Sampler: one obvious pass after the other over the whole vocabulary.
#pragma once

#include "engine/sampler.h"

#include <span>

namespace wideep::engine {

Result<TokenId> reference_sample(const math::Kernels& kernels,
                                 std::span<const float> logits,
                                 const SampleInput& input);

}  // namespace wideep::engine
