#include "step_bytes.h"

#include <cmath>

namespace wideep::bench {

double step_bytes(const model::Model& model, int64_t batch) {
  const model::ModelConfig& config = model.config();
  const auto embedding = static_cast<double>(config.vocab_size * config.hidden_size * 2);
  const double untouched =
      1 - static_cast<double>(config.router.top_k) / static_cast<double>(config.num_experts());
  const double touched = 1 - std::pow(untouched, static_cast<double>(batch));
  return static_cast<double>(model.other_bytes()) - embedding +
         touched * static_cast<double>(model.expert_bytes());
}

}  // namespace wideep::bench
