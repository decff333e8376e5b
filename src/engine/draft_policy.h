// Whether guessing ahead pays, found out by trying. A guess makes the step longer (more rows touch
// more experts, the draft layer runs too) and pays if enough guesses are right; both depend on the
// model, the text and above all on how many sequences decode together. So for each size of batch,
// by powers of two, this remembers what a token cost with guesses and without, takes the cheaper
// way, and now and then tries the other again.
//
// What is sampled does not depend on it: a draft counts only where it equals the sample.
// Thread: the engine thread.
#pragma once

#include "base/clock.h"

#include <array>
#include <cstdint>

namespace wideep::engine {

class DraftPolicy {
 public:
  static constexpr int64_t kTrialSteps = 8;     // of each way before the first decision
  static constexpr int64_t kRetryEvery = 1024;  // steps; then the other way for kTrialSteps

  // Whether the coming steps, with so many decoding sequences, should guess. Once a step.
  bool wants_drafts(int64_t num_sequences);

  // A step in which all sequences decoded, and either all of them with drafts or none.
  struct Step {
    int64_t num_sequences = 0;
    bool with_drafts = false;
    Duration duration{};
    int64_t num_tokens = 0;  // that it gave
  };

  void observe(const Step& step);

 private:
  struct Cost {
    double seconds_per_token = 0;  // a running average
    int64_t num_seen = 0;
  };

  struct BatchSize {
    Cost with;
    Cost without;
    int64_t num_steps = 0;  // since both are known
  };

  BatchSize& size_of(int64_t num_sequences);

  std::array<BatchSize, 64> sizes_{};
};

}  // namespace wideep::engine
