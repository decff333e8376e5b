// The judge of every exchange: obvious, slow, one process. All ranks are threads around one board;
// each pins its rows there, everybody looks, and results are pinned back.
#pragma once

#include "base/matrix.h"
#include "ep/all_to_all.h"
#include "ep/placement.h"

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace wideep::ep {

// Shared by the ranks. A barrier and, per rank, what it has pinned.
class ReferenceBoard {
 public:
  ReferenceBoard(const Placement& placement, RowFormats formats)
      : placement_(placement), formats_(formats), pinned_(placement.num_ranks()) {}

 private:
  friend class ReferenceAllToAll;
  using Row = std::vector<std::byte>;

  struct Pinned {
    StepWish wish;
    int64_t hidden = 0;
    std::vector<Row> rows;           // [num_tokens], in the dispatch format
    std::vector<ExpertId> experts;   // [num_tokens * top_k]
    std::vector<AlignedBuffer> out;  // [num_tokens * top_k], in the combine format
  };

  // Returns when every rank is here; kTimeout after a minute.
  Status meet();

  const Placement& placement_;
  const RowFormats formats_;
  std::mutex mutex_;
  std::condition_variable all_here_;
  int32_t num_here_ = 0;
  uint64_t round_ = 0;
  std::vector<Pinned> pinned_;
};

class ReferenceAllToAll final : public AllToAll {
 public:
  ReferenceAllToAll(ReferenceBoard& board, RankId rank) : board_(board), rank_(rank) {}

  Result<StepProgram> begin_step(const StepWish& wish) override;
  Status start_dispatch(LayerId layer, MatrixView<const float> h, const Routing& routing) override;
  Result<ExpertBatch> next_experts() override;
  Status finish(const ExpertBatch& batch) override;
  Status combine(MatrixView<const float> shared, MatrixView<float> x) override;

  int64_t tokens_max() const override { return INT64_MAX; }

 private:
  ReferenceBoard::Pinned& own() { return board_.pinned_[subscript(rank_)]; }

  ReferenceBoard& board_;
  const RankId rank_;
  LayerId layer_{};
  std::vector<float> weights_;
  bool is_first_ = true;  // of the epoch or after a sleep
  bool computed_ = false;
  std::vector<AlignedBuffer> inputs_;
  std::vector<std::vector<const std::byte*>> in_;  // [slots]
  std::vector<std::vector<std::byte*>> out_;
  std::vector<ExpertRows> experts_;
};

}  // namespace wideep::ep
