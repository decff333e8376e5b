#include "engine/draft_policy.h"

#include <algorithm>
#include <bit>

namespace wideep::engine {
namespace {

constexpr int64_t kAverageSteps = 16;  // that an average is about

}  // namespace

DraftPolicy::BatchSize& DraftPolicy::size_of(int64_t num_sequences) {
  return sizes_[static_cast<size_t>(std::bit_width(static_cast<uint64_t>(num_sequences))) % 64];
}

bool DraftPolicy::wants_drafts(int64_t num_sequences) {
  BatchSize& size = size_of(num_sequences);
  if (size.with.num_seen < kTrialSteps) return true;
  if (size.without.num_seen < kTrialSteps) return false;
  const bool pays = size.with.seconds_per_token <= size.without.seconds_per_token;
  const bool is_trial = size.num_steps++ % kRetryEvery >= kRetryEvery - kTrialSteps;
  return pays != is_trial;
}

void DraftPolicy::observe(const Step& step) {
  if (step.num_tokens <= 0) return;
  BatchSize& size = size_of(step.num_sequences);
  Cost& cost = step.with_drafts ? size.with : size.without;
  const double seconds =
      std::chrono::duration<double>(step.duration).count() / static_cast<double>(step.num_tokens);
  ++cost.num_seen;
  cost.seconds_per_token += (seconds - cost.seconds_per_token) /
                            static_cast<double>(std::min(cost.num_seen, kAverageSteps));
}

}  // namespace wideep::engine
