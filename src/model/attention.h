// Attention of a decoder layer over the paged cache. MlaAttention works in the absorbed form: kv_b
// is folded into the queries and the outputs, so that every head attends to the one latent row per
// token that is cached; by option (AttentionForm::kByRole) tokens of prompts attend to keys and
// values that are expanded per head instead. GqaAttention is the plain kind with normalised queries
// and keys.
//
// An object per layer; scratch is shared, because layers run one after the other. Ownership:
// weights and scratch are the model's. Thread: as model.h.
#pragma once

#include "base/matrix.h"
#include "math/attention.h"
#include "math/expanded_attention.h"
#include "model/compute.h"
#include "model/config.h"
#include "model/numeric_config.h"
#include "model/step.h"
#include "model/weights.h"

#include <cstdint>
#include <memory>
#include <optional>

namespace wideep::model {

// How a token is cached: what KvLayout and the attention kernel need.
kv::CacheGroup cache_group(const ModelConfig& config,
                           math::CacheFormat format,
                           int64_t num_layers,
                           int64_t block_tokens);

class Attention {
 public:
  virtual ~Attention() = default;

  // h: [rows, hidden], normalised. Writes the rows' keys and values into the cache and adds the
  // attention's output to x.
  virtual void forward(Step& step, MatrixView<const float> h, MatrixView<float> x) = 0;
};

// Buffers that the attention of all layers uses in turn.
struct AttentionScratch {
  AttentionScratch(const Compute& compute,
                   Projector& projector,
                   const ModelConfig& config,
                   const NumericConfig& numeric,
                   int64_t block_tokens);

  const Compute& compute;
  Projector& projector;
  const ModelConfig& config;
  math::CacheFormat format;
  math::AttentionShape shape;
  math::Attention kernel;
  std::optional<math::ExpandedAttention> expanded;  // with AttentionForm::kByRole
  HeadProduct heads;

  Matrix<float> fused;    // [rows_max, columns of the fused projection]
  Matrix<float> q;        // [rows_max, heads * q_head_dim]
  Matrix<float> queries;  // [rows_max, heads * key_width], what the kernel takes
  Matrix<float> latent;   // [rows_max, heads * value_width], what it gives
  Matrix<float> values;   // [rows_max, heads * v_head_dim] (MLA)
};

class MlaAttention : public Attention {
 public:
  MlaAttention(const MlaWeights& weights, int64_t layer, AttentionScratch& scratch)
      : w_(weights), layer_(layer), s_(scratch) {}

  void forward(Step& step, MatrixView<const float> h, MatrixView<float> x) override;

 private:
  MatrixView<float> project_queries(MatrixView<float> fused);
  void cache_latent(Step& step, MatrixView<float> kv);
  void attend_expanded(Step& step, MatrixView<const float> q);
  void attend_absorbed(Step& step, MatrixView<const float> q, TokenRole role);
  void absorb(const Step& step, MatrixView<const float> q, const RowRun& run);

  const MlaWeights& w_;
  const int64_t layer_;
  AttentionScratch& s_;
};

class GqaAttention : public Attention {
 public:
  GqaAttention(const GqaWeights& weights, int64_t layer, AttentionScratch& scratch)
      : w_(weights), layer_(layer), s_(scratch) {}

  void forward(Step& step, MatrixView<const float> h, MatrixView<float> x) override;

 private:
  void rotate(const Step& step, int64_t row, float* head, std::span<const float> norm) const;
  void cache_keys_and_values(Step& step, MatrixView<float> fused);

  const GqaWeights& w_;
  const int64_t layer_;
  AttentionScratch& s_;
};

}  // namespace wideep::model
