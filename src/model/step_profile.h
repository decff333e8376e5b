// Where the time of a step goes: one clock reading at the end of each phase, always on (some twenty
// readings a layer, a thousandth of a step).
#pragma once

#include "base/clock.h"

#include <array>
#include <cstdint>
#include <string_view>

namespace wideep::model {

enum class Phase : uint8_t {
  kEmbed,
  kNorm,
  kProject,    // inputs of attention: fused projections, their norms and rotation
  kAbsorb,     // queries through W_UK, latents through W_UV (MLA)
  kAttention,  // the kernel over the cache
  kOutput,     // o_proj and its addition
  kDense,      // dense feed-forward
  kRouter,
  kDispatch,  // until a batch of experts is there: copying, waiting for others
  kShared,
  kExperts,
  kCombine,
  kHead,
};
inline constexpr int kNumPhases = static_cast<int>(Phase::kHead) + 1;
std::string_view name(Phase phase);

class StepProfile {
 public:
  explicit StepProfile(const Clock& clock) : clock_(clock) {}

  // A step begins: what lies before belongs to no phase.
  void begin() {
    ++num_steps_;
    last_ = clock_.now();
  }

  // The time since the last call was this phase's.
  void lap(Phase phase) {
    const TimePoint now = clock_.now();
    spent_[static_cast<size_t>(phase)] += now - last_;
    last_ = now;
  }

  Duration spent(Phase phase) const { return spent_[static_cast<size_t>(phase)]; }

  int64_t num_steps() const { return num_steps_; }

  void reset() {
    spent_ = {};
    num_steps_ = 0;
  }

 private:
  const Clock& clock_;
  TimePoint last_{};
  std::array<Duration, kNumPhases> spent_{};
  int64_t num_steps_ = 0;
};

}  // namespace wideep::model
