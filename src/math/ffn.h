// SwiGLU feed-forward over many experts at once: out = down(silu(gate x) * up x).
//
// One shared work list over all groups (expert x column panel), two barriers in all: first every
// gate_up panel (SiLU fused while the tile is in L1, the inner row written once), then every down
// panel. An int8 row's scale is known when the whole row is: whoever finishes the last gate_up
// panel of some rows encodes them. A dense layer or a shared expert is one group. The inner row is
// held in the input format of `down` (kBf16, kInt8 with a scale of its own row, or kF32). Output
// rows are written in `out_format` (kF32 or kBf16), each to where its pointer says: the combine
// buffer of its token, on this rank or another. A row's result depends on the row, its expert and
// the ISA level alone. Thread: forward() by one thread at a time; it uses the pool's.
#pragma once

#include "base/function_ref.h"
#include "base/thread_pool.h"
#include "math/gemm.h"
#include "math/panel_product.h"

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

namespace wideep::math {

struct FfnWeights {
  PackedMatrix gate_up;  // pack_gate_up: n = 2 * inner, k = hidden
  PackedMatrix down;     // n = hidden, k = inner
};

struct FfnGroup {
  const FfnWeights* weights = nullptr;
  std::span<const std::byte* const> in;  // rows in input_format(gate_up.format, precision)
  std::span<std::byte* const> out;       // rows of out_format; their `hidden` columns are written
  std::span<const uint8_t> out_is_far;   // which will be read from memory; none: none
};

class Ffn {
 public:
  // `rows_max`: rows of all groups of one call together; `inner_max`: widest inner row. Allocates
  // here, and once more per thread when rows are first prepared.
  Ffn(ThreadPool& pool,
      const Kernels& kernels,
      RowFormat out_format,
      int64_t rows_max,
      int64_t inner_max,
      Precision precision = Precision::kMixed);

  // All weights of one call share format and shape. Returns when every output row is written. Adds
  // the bytes of weights read to weight_bytes_read().
  void forward(std::span<const FfnGroup> groups);

  int64_t weight_bytes_read() const { return weight_bytes_read_; }

 private:
  // One panel of one phase for up to rows_per_block rows of a group.
  struct Item {
    int32_t group = 0;
    int32_t panel = 0;
    int32_t first_row = 0;  // of the group
    int32_t num_rows = 0;
  };

  // Items of one phase.
  struct WorkList {
    explicit WorkList(int num_threads) : left(num_threads) {}

    std::vector<Item> items;
    SharedItems left;

    int64_t num_items() const { return static_cast<int64_t>(items.size()); }
  };

  // What differs between the phases; `finish` takes the f32 tile [item.num_rows][64].
  struct Phase {
    FunctionRef<const PackedMatrix&(const Item&)> weights;
    FunctionRef<Rows(const Item&)> rows;
    FunctionRef<void(const Item&, float*)> finish;
  };

  void list_items(std::span<const FfnGroup> groups);
  void run_items(int thread, WorkList& work, const Phase& phase);
  void finish_gate_up(const Item& item, float* tile);
  void activate(const Item& item, float* tile);
  void finish_down(std::span<const FfnGroup> groups, const Item& item, const float* tile);
  std::byte* inner_f32(int64_t row);

  ThreadPool& pool_;
  const Kernels& kernels_;
  RowFormat out_format_;
  Precision precision_;
  int64_t rows_max_;
  int64_t inner_max_;
  int64_t inner_ = 0;  // of this call
  RowFormat input_format_ = RowFormat::kF32;
  RowFormat inner_format_ = RowFormat::kF32;
  AlignedBuffer inner_f32_;  // [rows_max][inner_max], kInt8 only: the row before its scale is known
  AlignedBuffer inner_storage_;  // [rows_max] rows of inner_format_
  std::vector<std::byte*> inner_rows_;
  // kInt8 only: gate_up panels that the block of rows which begins with row r has not met.
  std::vector<std::atomic<int64_t>> panels_left_;
  std::vector<int64_t> first_row_;      // of each group among all rows of the call
  std::vector<PreparedRows> prepared_;  // of each thread
  WorkList gate_up_work_;
  WorkList down_work_;
  int64_t weight_bytes_read_ = 0;
};

// The slow twin: one row through one expert, from decoded values in double precision.
void reference_ffn(const FfnWeights& weights,
                   RowFormat in_format,
                   const std::byte* in,
                   std::span<float> out);

}  // namespace wideep::math
