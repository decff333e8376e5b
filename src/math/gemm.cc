#include "math/gemm.h"

#include "base/check.h"
#include "base/rounding.h"
#include "math/panel_product.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace wideep::math {
namespace {

using Tile = std::array<float, kRowBlockMax * kPanelCols>;

void check_product(const PackedMatrix& w, const Rows& x) {
  WD_CHECK(x.cols == w.k);
  WD_CHECK(w.k <= kInputsMax);
  WD_CHECK(static_cast<int64_t>(w.bytes.size()) == packed_bytes(w.format, w.n, w.k));
  const bool whole = x.format == RowFormat::kInt8;
  const bool whole_weights = w.format == WeightFormat::kInt8 || w.format == WeightFormat::kInt4;
  WD_CHECK(whole == whole_weights);
  WD_CHECK(x.format != RowFormat::kFp8);
  WD_CHECK(x.format != RowFormat::kBf16 || w.format != WeightFormat::kF32);
}

// Through a tile: sums that wait between two blocks of inputs must stay in the first-level cache,
// and the rows of `out`, often a multiple of 4 KiB apart, would push each other out of it.
void multiply_into(const Kernels& kernels,
                   PanelProduct product,
                   MatrixView<float> out,
                   int64_t first_col,
                   Write write) {
  const int64_t cols = std::min(kPanelCols, out.cols - first_col);
  alignas(64) Tile tile;
  product.out = tile.data();
  kernels.multiply_panel(product);
  for (int64_t r = 0; r < out.rows; ++r) {
    const float* from = tile.data() + r * kPanelCols;
    if (write == Write::kAdd) {
      kernels.add(from, cols, &out(r, first_col));
    } else {
      std::copy(from, from + cols, &out(r, first_col));
    }
  }
}

// The calling thread's; grows to the widest rows once. A function, because a thread_local variable
// is made, and freed with its thread, only where its declaration is passed: a lambda that runs on
// other threads does not pass the one around it.
PreparedRows& prepared_of_thread() {
  thread_local PreparedRows prepared;
  return prepared;
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

PanelProduct product_of(const PackedMatrix& w, const Rows& x) {
  return {.format = w.format,
          .row_format = x.format,
          .kp = padded_k(w.k),
          .rows = x.pointers.data(),
          .num_rows = static_cast<int64_t>(x.pointers.size())};
}

int64_t rows_per_block(const Rows& x) {
  constexpr int64_t kInL2 = 1 << 20;
  return std::clamp(kInL2 / row_bytes(x.format, x.cols) / 64 * 64, int64_t{64}, kRowBlockMax);
}

void set_panel(PanelProduct& product, const PackedMatrix& w, int64_t panel) {
  product.panel = w.bytes.data() + panel * panel_bytes(w.format, w.k);
  product.scales = product.panel + panel_value_bytes(w.format, product.kp);
}

std::byte* PreparedRows::reserve(int64_t bytes) {
  if (bytes > static_cast<int64_t>(storage_.size()))
    storage_ = AlignedBuffer(static_cast<size_t>(bytes));
  return storage_.data();
}

void PreparedRows::prepare(const Kernels& kernels, PanelProduct& product) {
  std::byte* const bytes = reserve(kernels.prepared_bytes(product));
  kernels.prepare_rows(product, bytes);
  product.prepared = bytes;
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
  PreparedRows& prepared = prepared_of_thread();
  const int64_t step = rows_per_block(x);
  for (int64_t begin = 0; begin < num_rows; begin += step) {
    const int64_t count = std::min(step, num_rows - begin);
    PanelProduct product = product_of(w, x.slice(begin, count));
    prepared.prepare(kernels, product);
    const MatrixView<float> block = out.slice(begin, count);
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
      set_panel(product, w, panel);
      multiply_into(kernels, product, block, panel * kPanelCols, Write::kSet);
    }
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

// One block of rows is prepared by every thread in its own cache, where it meets the thread's
// panels; many blocks are prepared once, by all threads, and then meet every panel.
void parallel_gemm(ThreadPool& pool,
                   const Kernels& kernels,
                   const PackedMatrix& w,
                   const Rows& x,
                   MatrixView<float> out,
                   Write write) {
  check_product(w, x);
  const auto num_rows = static_cast<int64_t>(x.pointers.size());
  WD_CHECK(out.rows == num_rows && out.cols == w.n);
  if (num_rows == 0) return;
  const int64_t step = rows_per_block(x);
  const int64_t blocks = divide_up(num_rows, step);
  const auto block_of = [&](int64_t block) {
    return product_of(w, x.slice(block * step, std::min(step, num_rows - block * step)));
  };
  const int64_t block_bytes = round_up(kernels.prepared_bytes(block_of(0)), 64);
  const auto prepare_own = [&](int) {
    if (blocks == 1 && block_bytes > 0)
      kernels.prepare_rows(block_of(0), prepared_of_thread().reserve(block_bytes));
  };
  std::byte* const shared = prepared_of_thread().reserve(blocks * block_bytes);
  if (blocks > 1 && block_bytes > 0) {
    pool.for_each(blocks, [&](int64_t block, int) {
      kernels.prepare_rows(block_of(block), shared + block * block_bytes);
    });
  }
  // All blocks of rows of a panel one after the other: it is read from memory once. Panels in
  // ranges: what a kernel asks for behind its panel is the next one.
  pool.for_ranges(w.num_panels() * blocks, prepare_own, [&](ItemRange items, int) {
    const std::byte* const base = blocks == 1 ? prepared_of_thread().reserve(0) : shared;
    for (int64_t item = items.begin; item < items.end; ++item) {
      const int64_t panel = item / blocks;
      const int64_t block = item % blocks;
      PanelProduct product = block_of(block);
      product.prepared = base + block * block_bytes;
      set_panel(product, w, panel);
      multiply_into(kernels, product, out.slice(block * step, product.num_rows), panel * kPanelCols,
                    write);
    }
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
