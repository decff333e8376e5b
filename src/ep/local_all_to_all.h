// The exchange of a group of one rank: every expert is here, nothing travels. Rows are still
// rounded to the dispatch and combine formats, as they would be on a wire, so that one rank gives
// the same bits as many.
#pragma once

#include "base/memory.h"
#include "base/thread_pool.h"
#include "ep/all_to_all.h"
#include "ep/expert_load.h"
#include "math/kernels.h"

#include <cstdint>
#include <vector>

namespace wideep::ep {

struct LocalAllToAllOptions {
  RowFormats formats;
  int64_t hidden = 0;
  int64_t num_experts = 0;  // slot i holds expert i
  int64_t top_k = 0;
  int64_t tokens_max = 0;
  int32_t num_layers = 0;  // whose loads are counted
};

class LocalAllToAll : public AllToAll {
 public:
  // Allocates here only.
  LocalAllToAll(ThreadPool& pool, const math::Kernels& kernels, LocalAllToAllOptions options);

  Result<StepProgram> begin_step(const StepWish& wish) override;
  Status start_dispatch(LayerId layer, MatrixView<const float> h, const Routing& routing) override;
  Result<ExpertBatch> next_experts() override;
  Status finish(const ExpertBatch& batch) override;
  Status combine(MatrixView<const float> shared, MatrixView<float> x) override;

  int64_t tokens_max() const override { return options_.tokens_max; }

  // As a group of one: all rows go to rank 0, which is this one. Any thread.
  const ExpertLoad& load() const { return load_; }

 private:
  void round_rows(MatrixView<const float> h);
  void group_by_expert(const Routing& routing);
  void count(LayerId layer);

  ThreadPool& pool_;
  const math::Kernels& kernels_;
  const LocalAllToAllOptions options_;
  const int64_t in_bytes_;
  const int64_t out_bytes_;

  AlignedBuffer in_rows_;       // [tokens_max] rows of formats.input
  AlignedBuffer out_rows_;      // [tokens_max * top_k] rows of formats.combine, in (token, k) order
  AlignedBuffer wire_rows_;     // [num_threads] rows of formats.dispatch
  AlignedBuffer decoded_rows_;  // [num_threads] rows of f32
  std::vector<const std::byte*> result_pointers_;  // [tokens_max * top_k], into out_rows_

  // Of the layer in flight: rows sorted by expert, by (token, k) within one.
  int64_t num_tokens_ = 0;
  std::vector<float> weights_;      // [num_tokens * top_k]
  std::vector<int64_t> first_row_;  // [num_experts + 1]
  std::vector<const std::byte*> in_pointers_;
  std::vector<std::byte*> out_pointers_;
  std::vector<ExpertRows> experts_;
  ExpertLoad load_;
  bool handed_out_ = true;
};

}  // namespace wideep::ep
