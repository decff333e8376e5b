#include "model/step_profile.h"

#include "model/model.h"

namespace wideep::model {

std::string_view name(Phase phase) {
  static constexpr std::array<std::string_view, kNumPhases> kNames = {
      "embed",  "norm",     "project", "absorb",  "attention", "output", "dense",
      "router", "dispatch", "shared",  "experts", "combine",   "head"};
  return kNames[static_cast<size_t>(phase)];
}

// What a model that keeps no account says.
const StepProfile& Model::profile() const {
  static const StepProfile empty(real_clock());
  return empty;
}

}  // namespace wideep::model
