#include "math/gemm.h"

#include "base/check.h"
#include "math/panel_product.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace wideep::math {
namespace {

constexpr int64_t kTileRows = 64;
using Tile = std::array<float, kTileRows * kPanelCols>;

void check_product(const PackedMatrix& w, const Rows& x) {
  WD_CHECK(x.cols == w.k);
  WD_CHECK(static_cast<int64_t>(w.bytes.size()) == packed_bytes(w.format, w.n, w.k));
  const bool whole = x.format == RowFormat::kInt8;
  const bool whole_weights = w.format == WeightFormat::kInt8 || w.format == WeightFormat::kInt4;
  WD_CHECK(whole == whole_weights);
  WD_CHECK(x.format != RowFormat::kFp8);
  WD_CHECK(x.format != RowFormat::kBf16 || w.format != WeightFormat::kF32);
}

// The last panel of a matrix whose n is no multiple of 64: through a tile, valid columns copied.
void multiply_partial_panel(const Kernels& kernels,
                            PanelProduct product,
                            MatrixView<float> out,
                            int64_t first_col) {
  alignas(64) Tile tile;
  const int64_t num_rows = product.num_rows;
  const auto bytes = static_cast<size_t>(out.cols - first_col) * sizeof(float);
  for (int64_t begin = 0; begin < num_rows; begin += kTileRows) {
    product.num_rows = std::min(kTileRows, num_rows - begin);
    product.out = tile.data();
    product.out_stride = kPanelCols;
    kernels.multiply_panel(product);
    for (int64_t r = 0; r < product.num_rows; ++r)
      std::memcpy(&out(begin + r, first_col), tile.data() + r * kPanelCols, bytes);
    product.rows += product.num_rows;
  }
}

}  // namespace

RowFormat input_format(WeightFormat weights, Precision precision) {
  switch (weights) {
    case WeightFormat::kF32:
      return RowFormat::kF32;
    case WeightFormat::kBf16:
    case WeightFormat::kFp8:
      return precision == Precision::kF32 ? RowFormat::kF32 : RowFormat::kBf16;
    case WeightFormat::kInt8:
    case WeightFormat::kInt4:
      return RowFormat::kInt8;
  }
  WD_CHECK(false);
}

void gemm(const Kernels& kernels,
          const PackedMatrix& w,
          const Rows& x,
          PanelRange panels,
          MatrixView<float> out) {
  check_product(w, x);
  const auto num_rows = static_cast<int64_t>(x.pointers.size());
  WD_CHECK(out.rows == num_rows && out.cols == w.n);
  WD_CHECK(panels.begin >= 0 && panels.end <= w.num_panels());
  if (num_rows == 0) return;
  PanelProduct product{.format = w.format,
                       .row_format = x.format,
                       .kp = padded_k(w.k),
                       .rows = x.pointers.data(),
                       .num_rows = num_rows};
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    product.panel = w.bytes.data() + panel * panel_bytes(w.format, w.k);
    const int64_t first_col = panel * kPanelCols;
    if (w.n - first_col < kPanelCols) {
      multiply_partial_panel(kernels, product, out, first_col);
      continue;
    }
    product.out = &out(0, first_col);
    product.out_stride = out.stride;
    kernels.multiply_panel(product);
  }
}

void reference_gemm(const PackedMatrix& w, const Rows& x, MatrixView<float> out) {
  Matrix<float> rows(static_cast<int64_t>(x.pointers.size()), w.k);
  for (int64_t r = 0; r < rows.rows(); ++r)
    reference_decode_row(x.format, x.pointers[static_cast<size_t>(r)], rows.row(r));
  std::vector<double> weights(static_cast<size_t>(w.k));
  for (int64_t c = 0; c < w.n; ++c) {
    for (int64_t k = 0; k < w.k; ++k)
      weights[static_cast<size_t>(k)] = unpack_value(w, c, k);
    for (int64_t r = 0; r < rows.rows(); ++r) {
      double sum = 0;
      for (int64_t k = 0; k < w.k; ++k)
        sum += double{rows(r, k)} * weights[static_cast<size_t>(k)];
      out(r, c) = static_cast<float>(sum);
    }
  }
}

void parallel_gemm(ThreadPool& pool,
                   const Kernels& kernels,
                   const PackedMatrix& w,
                   const Rows& x,
                   MatrixView<float> out) {
  pool.for_each(w.num_panels(), [&](int64_t panel, int) {
    gemm(kernels, w, x, {.begin = panel, .end = panel + 1}, out);
  });
}

RowBuffer::RowBuffer(RowFormat format, int64_t rows_max, int64_t cols)
    : format_(format),
      cols_(cols),
      row_bytes_(row_bytes(format, cols)),
      storage_(static_cast<size_t>(rows_max * row_bytes_)) {
  for (int64_t r = 0; r < rows_max; ++r)
    pointers_.push_back(row(r));
}

Rows RowBuffer::first(int64_t count) const {
  return {.format = format_,
          .cols = cols_,
          .pointers = std::span(pointers_).first(static_cast<size_t>(count))};
}

Rows RowBuffer::encode(const Kernels& kernels, MatrixView<const float> x) {
  WD_CHECK(x.rows <= static_cast<int64_t>(pointers_.size()) && x.cols == cols_);
  for (int64_t r = 0; r < x.rows; ++r)
    kernels.encode_row(format_, x.row(r).data(), cols_, row(r));
  return first(x.rows);
}

Rows RowBuffer::encode(ThreadPool& pool, const Kernels& kernels, MatrixView<const float> x) {
  WD_CHECK(x.rows <= static_cast<int64_t>(pointers_.size()) && x.cols == cols_);
  pool.for_each(
      x.rows, [&](int64_t r, int) { kernels.encode_row(format_, x.row(r).data(), cols_, row(r)); });
  return first(x.rows);
}

}  // namespace wideep::math
