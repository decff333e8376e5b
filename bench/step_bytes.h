// The floor of a decode step: the weights that it must read.
#pragma once

#include "model/model.h"

#include <cstdint>

namespace wideep::bench {

// Everything that `model` holds but the embedding and the experts, and of its experts as many as
// the random tokens of `batch` sequences touch on average.
double step_bytes(const model::Model& model, int64_t batch);

}  // namespace wideep::bench
