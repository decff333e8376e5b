// Whether guessing ahead pays, found out by trying. A guess makes the step longer (more rows touch
// more experts, the draft layer runs too) and pays if enough guesses are right; both depend on the
// model, the text and above all on how many sequences decode together. So for each size of batch,
// by powers of two, there is now and then a trial: a few steps with guesses and a few without, in
// turns, so that a disturbance hits both, and without the slowest of them. What was cheaper for a
// token is done until the next trial.
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
  static constexpr int64_t kTrialSteps = 16;    // of each way that count
  static constexpr int64_t kTurnSteps = 4;      // of one way in a row
  static constexpr int64_t kRetryEvery = 2048;  // steps from trial to trial

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
  // One way in a trial.
  struct Samples {
    std::array<Duration, kTrialSteps> durations{};
    int64_t count = 0;
    int64_t num_tokens = 0;

    bool is_full() const { return count == kTrialSteps; }

    double seconds_per_token() const;
  };

  struct BatchSize {
    Samples with;
    Samples without;
    int64_t num_steps = 0;  // of the trial, then since its end
    bool is_decided = false;
    bool guesses = true;
  };

  BatchSize& size_of(int64_t num_sequences);

  std::array<BatchSize, 64> sizes_{};
};

}  // namespace wideep::engine
