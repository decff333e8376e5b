#include "model/compute.h"

#include "base/check.h"

namespace wideep::model {

void Compute::for_rows(int64_t num_rows, FunctionRef<void(int64_t)> body) const {
  if (num_rows == 1) {
    body(0);
  } else if (num_rows > 1) {
    pool.for_each(num_rows, [&](int64_t row, int) { body(row); });
  }
}

Projector::Projector(const Compute& compute, int64_t cols_max)
    : compute_(compute),
      rows_(
          static_cast<size_t>(compute.rows_max * math::row_bytes(math::RowFormat::kF32, cols_max))),
      pointers_(static_cast<size_t>(compute.rows_max)) {}

void Projector::multiply(const math::PackedMatrix& w,
                         MatrixView<const float> x,
                         MatrixView<float> out) {
  multiply_rows(w, math::input_format(w.format, compute_.precision), x, out, math::Write::kSet);
}

void Projector::multiply_add(const math::PackedMatrix& w,
                             MatrixView<const float> x,
                             MatrixView<float> out) {
  multiply_rows(w, math::input_format(w.format, compute_.precision), x, out, math::Write::kAdd);
}

void Projector::multiply_exact(const math::PackedMatrix& w,
                               MatrixView<const float> x,
                               MatrixView<float> out) {
  multiply_rows(w, math::RowFormat::kF32, x, out, math::Write::kSet);
}

void Projector::multiply_rows(const math::PackedMatrix& w,
                              math::RowFormat format,
                              MatrixView<const float> x,
                              MatrixView<float> out,
                              math::Write write) {
  if (x.rows == 0) return;
  WD_CHECK(x.cols == w.k);
  WD_CHECK(x.rows <= compute_.rows_max);
  const int64_t row_bytes = math::row_bytes(format, x.cols);
  WD_CHECK(x.rows * row_bytes <= static_cast<int64_t>(rows_.size()));
  compute_.for_rows(x.rows, [&](int64_t r) {
    std::byte* row = rows_.data() + r * row_bytes;
    compute_.kernels.encode_row(format, x.row(r).data(), x.cols, row);
    pointers_[static_cast<size_t>(r)] = row;
  });
  const math::Rows rows{.format = format,
                        .cols = x.cols,
                        .pointers = std::span(pointers_).first(static_cast<size_t>(x.rows))};
  math::parallel_gemm(compute_.pool, compute_.kernels, w, rows, out, write);
}

HeadProduct::HeadProduct(const Compute& compute, int64_t k_max)
    : compute_(compute),
      thread_bytes_(compute.rows_max * math::row_bytes(math::RowFormat::kF32, k_max)),
      rows_(static_cast<size_t>(thread_bytes_ * compute.pool.num_threads())),
      pointers_(static_cast<size_t>(compute.pool.num_threads())) {
  for (auto& pointers : pointers_)
    pointers.resize(static_cast<size_t>(compute.rows_max));
}

void HeadProduct::multiply(std::span<const math::PackedMatrix> w,
                           int64_t num_tokens,
                           HeadRows<const float> in,
                           HeadRows<float> out) {
  if (num_tokens == 0) return;
  WD_CHECK(num_tokens <= compute_.rows_max);
  const math::RowFormat format = math::input_format(w.front().format, compute_.precision);
  const int64_t k = w.front().k;
  const int64_t n = w.front().n;
  const int64_t row_bytes = math::row_bytes(format, k);
  WD_CHECK(num_tokens * row_bytes <= thread_bytes_);
  compute_.pool.for_each(static_cast<int64_t>(w.size()), [&](int64_t h, int thread) {
    std::byte* rows = rows_.data() + thread * thread_bytes_;
    auto& pointers = pointers_[static_cast<size_t>(thread)];
    for (int64_t t = 0; t < num_tokens; ++t) {
      const float* row = in.data + t * in.token_stride + h * in.head_stride;
      compute_.kernels.encode_row(format, row, k, rows + t * row_bytes);
      pointers[static_cast<size_t>(t)] = rows + t * row_bytes;
    }
    const math::PackedMatrix& head = w[static_cast<size_t>(h)];
    math::gemm(compute_.kernels, head,
               {.format = format,
                .cols = k,
                .pointers = std::span(pointers).first(static_cast<size_t>(num_tokens))},
               {.begin = 0, .end = head.num_panels()},
               {out.data + h * out.head_stride, num_tokens, n, out.token_stride});
  });
}

}  // namespace wideep::model
