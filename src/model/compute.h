// What the layers of a model compute with, and two small helpers around it.
#pragma once

#include "base/function_ref.h"
#include "base/matrix.h"
#include "base/memory.h"
#include "base/thread_pool.h"
#include "math/gemm.h"
#include "math/kernels.h"

#include <cstdint>
#include <span>
#include <vector>

namespace wideep::model {

// Borrowed by every layer; lives as long as the model.
struct Compute {
  ThreadPool& pool;
  const math::Kernels& kernels;
  math::Precision precision = math::Precision::kMixed;
  int64_t rows_max = 0;  // rows of a step

  // body(row) for every row; on the calling thread if there is only one.
  void for_rows(int64_t num_rows, FunctionRef<void(int64_t row)> body) const;
};

// y = W x for f32 rows: rounds them to what W multiplies, on scratch that all layers share.
class Projector {
 public:
  // `cols_max`: the widest input. Allocates here only.
  Projector(const Compute& compute, int64_t cols_max);

  // out [x.rows, w.n] = W x.
  void multiply(const math::PackedMatrix& w, MatrixView<const float> x, MatrixView<float> out);
  // out += W x.
  void multiply_add(const math::PackedMatrix& w, MatrixView<const float> x, MatrixView<float> out);
  // With rows kept in f32 (W is f32 or bf16): the router's precision, whatever the model's.
  void multiply_exact(const math::PackedMatrix& w,
                      MatrixView<const float> x,
                      MatrixView<float> out);

 private:
  void multiply_rows(const math::PackedMatrix& w,
                     math::RowFormat format,
                     MatrixView<const float> x,
                     MatrixView<float> out,
                     math::Write write);

  const Compute& compute_;
  AlignedBuffer rows_;
  std::vector<const std::byte*> pointers_;
};

// Rows of one head of every token: head h of token t begins at data + t * token_stride + h *
// head_stride.
template <typename T>
struct HeadRows {
  T* data = nullptr;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
};

// out[t][h] = W[h] in[t][h] for every head: a batch of small products, one head at a time per
// thread.
class HeadProduct {
 public:
  // `k_max`: the widest input of a head.
  HeadProduct(const Compute& compute, int64_t k_max);

  void multiply(std::span<const math::PackedMatrix> w,
                int64_t num_tokens,
                HeadRows<const float> in,
                HeadRows<float> out);

 private:
  const Compute& compute_;
  int64_t thread_bytes_;
  AlignedBuffer rows_;                                   // [num_threads][rows_max] rows
  std::vector<std::vector<const std::byte*>> pointers_;  // [num_threads][rows_max]
};

}  // namespace wideep::model
