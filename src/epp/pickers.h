// Pickers: from scores to a choice. Ties and chance are a function of the request's own random
// number.
#pragma once

#include "epp/plugin.h"

#include <cstddef>
#include <vector>

namespace wideep::epp {

// max-score-picker: shuffles, then takes the highest scores: ties fall at random.
class MaxScorePicker final : public Picker {
 public:
  explicit MaxScorePicker(size_t endpoints_max) : endpoints_max_(endpoints_max) {}

  std::vector<ScoredEndpoint> pick(PickContext& context,
                                   std::vector<ScoredEndpoint> candidates) override;

 private:
  size_t endpoints_max_;
};

// weighted-random-picker: without replacement, probability proportional to score (A-Res: the
// largest U^(1/score)); candidates with score 0 are left out unless all have 0, then it is uniform.
class WeightedRandomPicker final : public Picker {
 public:
  explicit WeightedRandomPicker(size_t endpoints_max) : endpoints_max_(endpoints_max) {}

  std::vector<ScoredEndpoint> pick(PickContext& context,
                                   std::vector<ScoredEndpoint> candidates) override;

 private:
  size_t endpoints_max_;
};

// random-picker.
class RandomPicker final : public Picker {
 public:
  explicit RandomPicker(size_t endpoints_max) : endpoints_max_(endpoints_max) {}

  std::vector<ScoredEndpoint> pick(PickContext& context,
                                   std::vector<ScoredEndpoint> candidates) override;

 private:
  size_t endpoints_max_;
};

}  // namespace wideep::epp
