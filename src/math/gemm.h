// Matrix products with packed weights: out = rows x W^T.
//
// A weight matrix W [n, k] (n outputs, k inputs, as checkpoints store it) is packed once at load
// into panels of 64 output columns; a panel is one contiguous stream that a kernel reads from start
// to end:
//   kF32   [n/64][k][64]                       kBf16 [n/64][k/2][64][2]
//   kFp8   [n/64][k/2][64][2] codes + scales   kInt8 [n/64][k/4][64][4] + column scales
//   kInt4  [n/64][k/32]{[4][64][4] nibbles, [64] scales}     (packed_layout.h has the details)
// k is padded with zeros to a multiple of 64, n to a multiple of 64. The layout is the same for
// every ISA level, so one cache file serves all machines, and a packed matrix is
// position-independent bytes.
//
// Which rows a format multiplies (RowFormat of x):
//   rows kF32 : weights kF32, kBf16, kFp8          f32 arithmetic, the judge's precision
//   rows kBf16: weights kBf16, kFp8                bf16 products, f32 sums
//   rows kInt8: weights kInt8, kInt4               int32 sums (int8: over all k; int4: per group of
//                                                  32, scaled into f32), then the row's scale
// fp8 block scales multiply the f32 partial sum of each 128-wide k block. bf16 products take
// denormal values (below 2^-126) for zero at the levels that have instructions for them.
// A row's result depends on that row, the weights and the ISA level alone: not on the number of
// rows, the tiling, the panel range or the threads. Thread: any; what rows are prepared in belongs
// to the calling thread and is kept.
#pragma once

#include "base/matrix.h"
#include "base/rounding.h"
#include "base/thread_pool.h"
#include "math/formats.h"
#include "math/kernels.h"
#include "math/packed_layout.h"

#include <cstdint>
#include <span>
#include <vector>

namespace wideep::math {

// Inputs of a matrix, at most (checked): 128 x 127 times as much fits into the int32 of int8 sums.
inline constexpr int64_t kInputsMax = 1 << 17;

// A packed weight matrix; the bytes are borrowed (from the weights' memory).
struct PackedMatrix {
  WeightFormat format = WeightFormat::kF32;
  int64_t n = 0;  // outputs
  int64_t k = 0;  // inputs
  std::span<const std::byte> bytes;

  int64_t num_panels() const { return divide_up(n, kPanelCols); }
};

// Bytes that a packed matrix takes, a multiple of 64.
int64_t packed_bytes(WeightFormat format, int64_t n, int64_t k);
// Bytes of one panel (all panels are equal): what a kernel reads for 64 outputs.
int64_t panel_bytes(WeightFormat format, int64_t k);

// A weight matrix as a checkpoint has it, row-major [n, k].
struct SourceMatrix {
  enum class Dtype { kF32, kBf16, kF16, kFp8, kInt8, kInt4 };
  Dtype dtype = Dtype::kF32;
  int64_t n = 0;
  int64_t k = 0;
  const std::byte* data = nullptr;        // n x k values, row stride k
  const float* block_scales = nullptr;    // kFp8: [ceil(n/128)][ceil(k/128)]; w = e4m3 * scale
  const float* channel_scales = nullptr;  // kInt8: [n]; w = i8 * scale
  // kInt4, compressed-tensors' pack-quantized: data is i32 [n][k/8], nibble i at bits 4i, scales
  // are bf16 [n][k/32]; w = (nibble - 8) * scale. k is a multiple of 32.
  const uint16_t* group_scales = nullptr;

  float at(int64_t row, int64_t col) const;  // one value in f32; slow
};

// Packs W; `out` has packed_bytes. Exact for kF32; kBf16 from bf16; kFp8, kInt8, kInt4 from the
// source of that name (codes and scales as they are). Otherwise rounds to the target: int8 and int4
// symmetric, scale = amax / 127 and amax / 7 (as bf16); fp8 by blocks, scale = amax / 448.
void pack(const SourceMatrix& w, WeightFormat format, std::span<std::byte> out);

// Packs gate and up [inner, k] as one matrix of 2 x inner rows in which every panel holds 32 gate
// columns and then the 32 up columns of the same indices, so that one pass over the rows gives both
// (see ffn.h). inner is padded to a multiple of 32. The result is a PackedMatrix of n = 2 * inner.
void pack_gate_up(const SourceMatrix& gate,
                  const SourceMatrix& up,
                  WeightFormat format,
                  std::span<std::byte> out);
int64_t packed_gate_up_bytes(WeightFormat format, int64_t inner, int64_t k);

// One value of a packed matrix in f32, for tests and references. In a gate_up matrix row
// 64 * (i / 32) + i % 32 is gate's row i, and the row 32 behind it is up's.
float unpack_value(const PackedMatrix& w, int64_t row, int64_t col);

// The format of rows that `weights` multiplies when activations are computed in f32 (`exact`) or
// not.
enum class Precision { kF32, kMixed };
RowFormat input_format(WeightFormat weights, Precision precision);

// Rows to multiply: pointers to row_bytes(format, cols) each; they may lie anywhere (a gather).
struct Rows {
  RowFormat format = RowFormat::kF32;
  int64_t cols = 0;
  std::span<const std::byte* const> pointers;

  // Rows [begin, begin + count).
  Rows slice(int64_t begin, int64_t count) const {
    return {.format = format,
            .cols = cols,
            .pointers = pointers.subspan(static_cast<size_t>(begin), static_cast<size_t>(count))};
  }
};

struct PanelRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// out[r][c] for the columns c of `panels` (out has n columns; columns >= n are not written). out
// row stride is free. Reads each panel once per block of 64 to 256 rows.
void gemm(const Kernels& kernels,
          const PackedMatrix& w,
          const Rows& x,
          PanelRange panels,
          MatrixView<float> out);
// The slow twin, in double precision from decoded values: tests compare within error bounds from
// data norms.
void reference_gemm(const PackedMatrix& w, const Rows& x, MatrixView<float> out);

// What becomes of a product: out = x W^T, or out += x W^T (the sum of each value once it is whole).
enum class Write : uint8_t { kSet, kAdd };

// The whole product, its panels spread over the pool.
void parallel_gemm(ThreadPool& pool,
                   const Kernels& kernels,
                   const PackedMatrix& w,
                   const Rows& x,
                   MatrixView<float> out,
                   Write write = Write::kSet);

// Rows owned: a buffer of `rows_max` rows of one format, and their pointers; what a layer keeps for
// its inputs.
class RowBuffer {
 public:
  RowBuffer() = default;
  RowBuffer(RowFormat format, int64_t rows_max, int64_t cols);
  // Encodes the rows of x (x.rows <= rows_max, x.cols == cols) and returns them.
  Rows encode(const Kernels& kernels, MatrixView<const float> x);
  // The same, rows spread over the pool.
  Rows encode(ThreadPool& pool, const Kernels& kernels, MatrixView<const float> x);

  std::byte* row(int64_t r) { return storage_.data() + r * row_bytes_; }

  RowFormat format() const { return format_; }

 private:
  Rows first(int64_t count) const;
  RowFormat format_ = RowFormat::kF32;
  int64_t cols_ = 0;
  int64_t row_bytes_ = 0;
  AlignedBuffer storage_;
  std::vector<const std::byte*> pointers_;
};

}  // namespace wideep::math
