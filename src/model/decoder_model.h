// The decoder that DeepSeek and Qwen share: embedding, layers of attention and feed-forward on an
// f32 residual stream, head. What differs between families is chosen per layer when it is built.
//
// Thread: one at a time. Nothing is allocated after construction.
#pragma once

#include "model/attention.h"
#include "model/feed_forward.h"
#include "model/model.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace wideep::model {

struct DecoderOptions {
  int64_t rows_max = 512;       // of a step
  int64_t expert_rows_max = 0;  // of one call of the expert kernels; 0: rows_max x top_k
  int64_t block_tokens = 64;    // of a KV block
  bool draft = false;
};

class DecoderModel : public Model {
 public:
  DecoderModel(ModelConfig config,
               NumericConfig numeric,
               std::string fingerprint,
               ModelWeights weights,
               ThreadPool& pool,
               const DecoderOptions& options);

  const ModelConfig& config() const override { return config_; }

  const NumericConfig& numeric() const override { return numeric_; }

  kv::KvLayout kv_layout(int64_t block_tokens) const override;

  std::string fingerprint() const override { return fingerprint_; }

  Result<MatrixView<const float>> forward(const Batch& batch, ep::AllToAll& all_to_all) override;
  Result<MatrixView<const float>> draft(const Batch& next, ep::AllToAll& all_to_all) override;

  void set_observer(ForwardObserver* observer) override { step_.set_observer(observer); }

  int64_t expert_bytes() const override {
    return static_cast<int64_t>(weights_.expert_arena.size());
  }

  const StepProfile& profile() const override { return step_.profile(); }

  StepProfile& profile() { return step_.profile(); }

  int64_t expert_bytes_read() const override { return ffn_scratch_.experts.weight_bytes_read(); }

  int64_t other_bytes() const override { return static_cast<int64_t>(weights_.dense_arena.size()); }

 private:
  struct Layer {
    int64_t id;
    const LayerWeights& weights;
    std::unique_ptr<Attention> attention;
    std::unique_ptr<FeedForward> feed_forward;
  };

  Layer make_layer(int64_t id);
  Status check(const Batch& batch, const ep::AllToAll& all_to_all) const;
  void embed(std::span<const TokenId> tokens, MatrixView<float> x) const;
  void norm(MatrixView<const float> x, std::span<const float> weight, MatrixView<float> out) const;
  Status run_layer(Layer& layer, MatrixView<float> x, ep::AllToAll& all_to_all);
  MatrixView<const float> head(MatrixView<const float> x, std::span<const float> norm_weight);

  const ModelConfig config_;
  const NumericConfig numeric_;
  const std::string fingerprint_;
  const ModelWeights weights_;
  const DecoderOptions options_;
  const Compute compute_;
  Projector projector_;
  Step step_;
  AttentionScratch attention_scratch_;
  std::optional<RouterScratch> router_scratch_;
  FfnScratch ffn_scratch_;
  std::vector<Layer> layers_;
  std::optional<Layer> draft_layer_;

  Matrix<float> x_;           // [rows_max, hidden], the residual stream
  Matrix<float> h_;           // [rows_max, hidden], normalised
  Matrix<float> final_norm_;  // [rows_max, hidden]: of the last forward, if drafting or observed
  Matrix<float> draft_in_;    // [rows_max, 2 x hidden]
  Matrix<float> picked_;      // [rows_max, hidden], rows whose logits are wanted
  Matrix<float> logits_;      // [rows_max, vocab]
};

}  // namespace wideep::model
