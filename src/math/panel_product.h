// One call of an inner kernel: rows x one packed panel -> 64 columns of f32. Between gemm.cc and
// the kernels of each ISA level; everybody else calls gemm().
#pragma once

#include "base/memory.h"
#include "math/formats.h"
#include "math/kernels.h"

#include <cstddef>
#include <cstdint>

namespace wideep::math {

struct PackedMatrix;
struct Rows;

struct PanelProduct {
  WeightFormat format = WeightFormat::kF32;
  RowFormat row_format = RowFormat::kF32;
  int64_t kp = 0;                          // inputs, padded to a multiple of 64
  const std::byte* panel = nullptr;        // packed_layout.h
  const std::byte* scales = nullptr;       // of this panel, kFp8 and kInt8
  const std::byte* const* rows = nullptr;  // formats.h
  int64_t num_rows = 0;
  // prepared_bytes of what prepare_rows made of these rows, 64-byte aligned; unused if none.
  const std::byte* prepared = nullptr;
  float* out = nullptr;  // [num_rows][kPanelCols], a tile in L1; all 64 columns are written
};

// Everything but the panel and the output of a product of x with w.
PanelProduct product_of(const PackedMatrix& w, const Rows& x);
void set_panel(PanelProduct& product, const PackedMatrix& w, int64_t panel);

// Rows that one pass over the panels serves: as many as stay in L2 beside a panel.
inline constexpr int64_t kRowBlockMax = 256;
int64_t rows_per_block(const Rows& x);

// Rows in the form that a level reads, kept from panel to panel. One per thread.
class PreparedRows {
 public:
  // For products whose prepared rows take at most `bytes`; grows if they take more.
  explicit PreparedRows(int64_t bytes = 0) : storage_(static_cast<size_t>(bytes)) {}

  // Room for `bytes`; what was there is gone if it has to grow.
  std::byte* reserve(int64_t bytes);
  // Prepares product.rows and points the product to the result.
  void prepare(const Kernels& kernels, PanelProduct& product);

 private:
  AlignedBuffer storage_;
};

}  // namespace wideep::math
