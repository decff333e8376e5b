// Pickers: from scores to a choice. Ties and chance are a function of the request's own random
// number.
#pragma once

#include "epp/plugin.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace wideep::epp {

// What a picker goes by.
enum class PickBy : uint8_t {
  kScore,  // max-score-picker: the highest
  // weighted-random-picker: without replacement, probability proportional to score (A-Res: the
  // largest U^(1/score)); candidates with score 0 are left out unless all have 0, then it is
  // uniform.
  kWeightedChance,
  kChance,  // random-picker
};

// Gives each candidate a rank and takes the highest; ties fall at random.
class RankPicker final : public Picker {
 public:
  RankPicker(PickBy by, size_t endpoints_max) : by_(by), endpoints_max_(endpoints_max) {}

  std::vector<ScoredEndpoint> pick(PickContext& context,
                                   std::vector<ScoredEndpoint> candidates) override;

 private:
  PickBy by_;
  size_t endpoints_max_;
};

}  // namespace wideep::epp
