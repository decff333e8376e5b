// What the layers of one forward share: the batch, the rotation of its positions, and where its
// keys and values lie in the paged cache. Thread: as model.h.
#pragma once

#include "base/matrix.h"
#include "kv/layout.h"
#include "math/attention.h"
#include "model/batch.h"
#include "model/compute.h"
#include "model/model.h"
#include "model/rope.h"
#include "model/step_profile.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace wideep::model {

// Rows of queries in and out of attention: row r begins at data + r * width.
struct AttentionRows {
  const float* q = nullptr;
  int64_t q_width = 0;
  float* out = nullptr;
  int64_t out_width = 0;
};

// Consecutive rows of a step.
struct RowRun {
  int64_t first = 0;
  int64_t count = 0;
};

// Rows by what their tokens are: of a prompt, or generated.
enum class TokenRole : uint8_t { kAny, kPrompt, kGenerated };

class Step {
 public:
  // `rope_dim`: values of a head that are rotated.
  Step(const Compute& compute, const RopeConfig& rope, int64_t rope_dim, kv::CacheGroup group);

  // Starts a forward of `batch`, which must stay until its end. Checks its shape.
  void begin(const Batch& batch);

  int64_t num_rows() const { return batch_->num_rows(); }

  const Batch& batch() const { return *batch_; }

  const RopeRows& rope() const { return rope_; }

  // Where the cached row of batch row `row` lies in `layer` of the cache group.
  std::byte* cache_row(int64_t layer, int64_t row) const {
    return rows_[static_cast<size_t>(row)] + layer * layer_bytes_;
  }

  // The attention work in `layer`, a chunk for each sequence that has rows of that role; valid
  // until the next call.
  std::span<const math::AttentionChunk> chunks(int64_t layer,
                                               const AttentionRows& rows,
                                               TokenRole role = TokenRole::kAny);
  // All rows of that role, in as few runs as they are; valid until the next call.
  std::span<const RowRun> runs(TokenRole role);

  // Intermediate values for whoever watches. `layer` -1: no layer in the name.
  void observe(std::string_view group,
               int64_t layer,
               std::string_view name,
               MatrixView<const float> rows) const;

  // The phase that ends here.
  void lap(Phase phase) { profile_.lap(phase); }

  StepProfile& profile() { return profile_; }

  const StepProfile& profile() const { return profile_; }

  bool is_observed() const { return observer_ != nullptr; }

  void set_observer(ForwardObserver* observer) { observer_ = observer; }

 private:
  const Compute& compute_;
  RopeRows rope_;
  const kv::CacheGroup group_;
  const int64_t layer_bytes_;
  const Batch* batch_ = nullptr;
  ForwardObserver* observer_ = nullptr;
  StepProfile profile_{real_clock()};
  std::vector<int64_t> positions_;        // [num_rows]
  std::vector<std::byte*> rows_;          // [num_rows] in layer 0
  std::vector<const std::byte*> blocks_;  // of all sequences, in the layer of chunks()
  std::vector<math::AttentionChunk> chunks_;
  std::vector<RowRun> runs_;
};

}  // namespace wideep::model
