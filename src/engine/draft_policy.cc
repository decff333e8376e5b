#include "engine/draft_policy.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace wideep::engine {

// The slowest quarter tells of others on the machine.
double DraftPolicy::Samples::seconds_per_token() const {
  std::array<Duration, kTrialSteps> sorted = durations;
  std::ranges::sort(sorted);
  constexpr auto kKept = kTrialSteps - kTrialSteps / 4;
  const Duration kept = std::accumulate(sorted.begin(), sorted.begin() + kKept, Duration{});
  return std::chrono::duration<double>(kept).count() / static_cast<double>(num_tokens);
}

DraftPolicy::BatchSize& DraftPolicy::size_of(int64_t num_sequences) {
  return sizes_[static_cast<size_t>(std::bit_width(static_cast<uint64_t>(num_sequences))) % 64];
}

bool DraftPolicy::wants_drafts(int64_t num_sequences) {
  BatchSize& size = size_of(num_sequences);
  if (size.is_decided && size.num_steps == kRetryEvery) size = {};
  const int64_t turn = size.num_steps++ / kTurnSteps;
  if (size.is_decided) return size.guesses;
  if (size.with.is_full() || size.without.is_full()) return size.without.is_full();
  return turn % 2 == 0;
}

void DraftPolicy::observe(const Step& step) {
  BatchSize& size = size_of(step.num_sequences);
  Samples& samples = step.with_drafts ? size.with : size.without;
  if (size.is_decided || samples.is_full() || step.num_tokens <= 0) return;
  samples.durations[static_cast<size_t>(samples.count++)] = step.duration;
  samples.num_tokens += step.num_tokens;
  if (!size.with.is_full() || !size.without.is_full()) return;
  size.is_decided = true;
  size.num_steps = 0;
  size.guesses = size.with.seconds_per_token() <= size.without.seconds_per_token();
}

}  // namespace wideep::engine
