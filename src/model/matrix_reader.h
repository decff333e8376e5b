// Reads rows of a checkpoint's matrix and checks their values: NaN, infinities, FP8's NaN codes and
// scales that are not finite or negative are refused by file, tensor and place.
//
// A reader owns the memory that its last matrix lies in; one per thread.
#pragma once

#include "base/memory.h"
#include "base/result.h"
#include "math/gemm.h"
#include "model/checkpoint.h"

#include <cstdint>
#include <vector>

namespace wideep::model {

// Row slices of FP8 matrices begin at a block of this many rows.
inline constexpr int64_t kRowSlice = 128;

struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
};

class MatrixReader {
 public:
  // Rows [begin, end) of `source`; `begin` is a multiple of kRowSlice. Valid until
  // the next read.
  Result<math::SourceMatrix> read(const TensorSource& source, RowRange rows);

 private:
  Status read_scales(const TensorSource& source, RowRange rows);

  AlignedBuffer values_;                // grows to the largest matrix so far
  std::vector<float> scales_;           // FP8
  std::vector<uint16_t> group_scales_;  // INT4
};

// A vector, or all of a small matrix, in f32: [rows * max(cols, 1)].
Result<std::vector<float>> read_floats(const TensorSource& source);

}  // namespace wideep::model
