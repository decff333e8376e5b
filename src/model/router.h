// Step 2 of the forward pass: which experts a token goes to, and with what weight. All in f32; ties
// go to the lowest index.
//
//   sigmoid (V3):  s = sigmoid(z), choice = s + bias, groups ranked by the sum of their two largest
//   softmax:       s = softmax(z), choice = s,        groups ranked by their largest, if there are
// The k largest choices among the groups kept, in descending order; weights are their s,
// renormalised if the model says so, times the model's scale. Thread: as model.h.
#pragma once

#include "base/matrix.h"
#include "ep/all_to_all.h"
#include "model/compute.h"
#include "model/config.h"
#include "model/weights.h"

#include <cstdint>
#include <span>
#include <vector>

namespace wideep::model {

// One token on its way through the router.
struct TokenChoice {
  std::span<float> scores;      // [experts]; its logits at first
  std::span<float> scratch;     // [experts]
  std::span<ExpertId> experts;  // [top_k], the result
  std::span<float> weights;     // [top_k]
};

// `bias`: [experts], with a correction bias only.
void choose_experts(const math::Kernels& kernels,
                    const RouterConfig& config,
                    std::span<const float> bias,
                    const TokenChoice& token);

// Buffers of a step's routing, shared by the layers.
struct RouterScratch {
  RouterScratch(const Compute& compute, Projector& projector, const RouterConfig& config);

  const Compute& compute;
  Projector& projector;
  const RouterConfig& config;
  Matrix<float> logits;  // [rows_max, experts]
  Matrix<float> scores;
  Matrix<float> choice;
  std::vector<ExpertId> experts;  // [rows_max, top_k]
  std::vector<float> weights;
};

class Router {
 public:
  Router(const MoeWeights& weights, RouterScratch& scratch) : w_(weights), s_(scratch) {}

  // h: [rows, hidden]. Valid until the next call.
  ep::Routing route(MatrixView<const float> h);

  // Of the last call: [rows, experts].
  MatrixView<const float> logits() const { return s_.logits.view(); }

 private:
  const MoeWeights& w_;
  RouterScratch& s_;
};

}  // namespace wideep::model
