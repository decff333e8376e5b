// A loaded model: embedding, decoder layers, head. It owns nothing of the requests: KV blocks and
// tokens come in with the batch, the exchange between ranks with the call, so that both can outlive
// or replace each other. Thread: forward() and draft() by one thread, the engine's; everything that
// is const by any. The layers run on that thread too, and on the pool.
#pragma once

#include "base/matrix.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "ep/all_to_all.h"
#include "kv/layout.h"
#include "model/batch.h"
#include "model/config.h"
#include "model/numeric_config.h"
#include "model/step_profile.h"

#include <cstdint>
#include <memory>
#include <string>

namespace wideep::model {

// Receives intermediate values while a forward runs, for `wideep golden`. Names are those of the
// golden sets: "embed", "hidden.3", "moe.3.router_logits", "moe.3.topk_ids" (as f32),
// "moe.3.topk_weights", "mla.0.c_kv", "mla.0.k_pe", "final_norm".
class ForwardObserver {
 public:
  virtual ~ForwardObserver() = default;
  virtual void observe(const std::string& name, MatrixView<const float> rows) = 0;
};

class Model {
 public:
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;
  virtual const NumericConfig& numeric() const = 0;
  // Cache groups for blocks of `block_tokens` (a multiple of 16, at most 512).
  virtual kv::KvLayout kv_layout(int64_t block_tokens) const = 0;
  // Identifies the weights and the architecture, whatever the format they were loaded in.
  virtual std::string fingerprint() const = 0;

  // Runs every layer on the batch (which may have no rows), writes the new tokens' KV into their
  // blocks and returns the logits [batch.logit_rows.size(), vocab]; valid until the next forward.
  // On an error nothing of the sequences has advanced: KV at positions >= SequenceRows::position is
  // garbage that the next try overwrites.
  virtual Result<MatrixView<const float>> forward(const Batch& batch, ep::AllToAll& all_to_all) = 0;

  // Logits of the multi-token-prediction layer for the rows of the last forward, each row paired
  // with the token that follows it: batch.tokens are those next tokens, rows and positions are the
  // same as in the forward. Only with config().num_nextn_predict_layers > 0 and drafting switched
  // on at load.
  virtual Result<MatrixView<const float>> draft(const Batch& next, ep::AllToAll& all_to_all) = 0;

  virtual void set_observer(ForwardObserver* observer) = 0;
  // Bytes of weights held, by kind, for `wideep serve` to show and the step's floor to be computed.
  virtual int64_t expert_bytes() const = 0;
  virtual int64_t other_bytes() const = 0;

  // Where the time of the steps so far went.
  virtual const StepProfile& profile() const;

  // Bytes of routed experts' weights read by the steps so far.
  virtual int64_t expert_bytes_read() const { return 0; }
};

}  // namespace wideep::model
