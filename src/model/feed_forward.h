// The feed-forward part of a decoder layer: one dense SwiGLU, or the mixture of experts, whose
// forward() is steps 2 to 5 of expert parallelism.
//
// Ownership: weights, router and scratch are the model's. Thread: as model.h.
#pragma once

#include "base/matrix.h"
#include "base/result.h"
#include "ep/all_to_all.h"
#include "math/ffn.h"
#include "model/compute.h"
#include "model/config.h"
#include "model/router.h"
#include "model/step.h"
#include "model/weights.h"

#include <cstdint>
#include <vector>

namespace wideep::model {

class FeedForward {
 public:
  virtual ~FeedForward() = default;

  // h: [rows, hidden], normalised. Adds the output to x. Fails only where the exchange fails; every
  // rank calls it for every layer, with zero rows if it has none.
  virtual Status forward(Step& step,
                         MatrixView<const float> h,
                         MatrixView<float> x,
                         ep::AllToAll& all_to_all) = 0;
};

// Buffers of the feed-forward layers, used in turn.
struct FfnScratch {
  FfnScratch(const Compute& compute,
             const ModelConfig& config,
             const ep::RowFormats& formats,
             int64_t expert_rows_max);

  const Compute& compute;
  int64_t expert_rows_max;
  math::Ffn dense;    // f32 rows out: dense layers and shared experts
  math::Ffn experts;  // rows of the combine format out
  AlignedBuffer in;   // [rows_max] encoded rows of h
  Matrix<float> out;  // [rows_max, hidden]
  std::vector<const std::byte*> in_pointers;
  std::vector<std::byte*> out_pointers;
  std::vector<math::FfnGroup> groups;
};

// One SwiGLU on rows of this rank; its own f32 output.
class DenseFfn : public FeedForward {
 public:
  DenseFfn(const math::FfnWeights& weights, FfnScratch& scratch) : w_(weights), s_(scratch) {}

  Status forward(Step& step,
                 MatrixView<const float> h,
                 MatrixView<float> x,
                 ep::AllToAll& all_to_all) override;

  // The output alone, valid until the next use of the scratch.
  MatrixView<const float> apply(MatrixView<const float> h);

 private:
  const math::FfnWeights& w_;
  FfnScratch& s_;
};

class MoeLayer : public FeedForward {
 public:
  MoeLayer(const MoeWeights& weights, LayerId layer, RouterScratch& router, FfnScratch& scratch);

  Status forward(Step& step,
                 MatrixView<const float> h,
                 MatrixView<float> x,
                 ep::AllToAll& all_to_all) override;

 private:
  ep::Routing route(Step& step, MatrixView<const float> h);
  MatrixView<const float> run_shared(Step& step, MatrixView<const float> h);
  void run_experts(Step& step, const ep::ExpertBatch& batch);
  void observe(const Step& step, const ep::Routing& routing) const;

  const MoeWeights& w_;
  const LayerId layer_;
  Router router_;
  std::optional<DenseFfn> shared_;
  FfnScratch& s_;
};

}  // namespace wideep::model
