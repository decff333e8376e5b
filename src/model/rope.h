// Rotary position embedding: the frequencies of a model (plain or YaRN), the cosines and sines of
// the positions of a step, and the factor that YaRN puts on the softmax scale.
//
// The angles are taken in double precision by exact_math.h, so that they are the same on every
// machine. Formulas: models.md 1.4 of the specification; they are repeated in rope.cc.
#pragma once

#include "base/matrix.h"
#include "base/thread_pool.h"
#include "model/config.h"

#include <cstdint>
#include <span>
#include <vector>

namespace wideep::model {

// Radians per position of each rotated pair: [dim / 2].
std::vector<double> rope_frequencies(const RopeConfig& rope, int64_t dim);
// Factor on cosines and sines: 1 for every released model.
double rope_attention_factor(const RopeConfig& rope);
// 1 / sqrt(width), times m^2 for YaRN with mscale_all_dim.
double softmax_scale(const RopeConfig& rope, int64_t width);

// Cosines and sines of a step's rows.
class RopeRows {
 public:
  RopeRows(const RopeConfig& rope, int64_t dim, int64_t rows_max);

  // Computes row r for position positions[r].
  void set(ThreadPool& pool, std::span<const int64_t> positions);

  const float* cosines(int64_t row) const { return cosines_.row(row).data(); }

  const float* sines(int64_t row) const { return sines_.row(row).data(); }

 private:
  std::vector<double> frequencies_;
  double factor_;
  Matrix<float> cosines_;  // [rows_max, dim / 2]
  Matrix<float> sines_;
};

}  // namespace wideep::model
