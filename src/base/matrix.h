// Dense row-major matrices: Matrix owns (64-byte aligned rows start, zero-initialised), MatrixView
// borrows.
#pragma once

#include "base/check.h"
#include "base/memory.h"

#include <cstdint>
#include <span>
#include <type_traits>

namespace wideep {

template <typename T>
struct MatrixView {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // in elements, >= cols

  MatrixView() = default;

  MatrixView(T* d, int64_t r, int64_t c) : data(d), rows(r), cols(c), stride(c) {}

  MatrixView(T* d, int64_t r, int64_t c, int64_t s) : data(d), rows(r), cols(c), stride(s) {}

  // A view of T converts to a view of const T.
  template <typename U>
    requires std::is_same_v<const U, T>
  MatrixView(MatrixView<U> other)  // NOLINT(google-explicit-constructor)
      : data(other.data), rows(other.rows), cols(other.cols), stride(other.stride) {}

  std::span<T> row(int64_t r) const {
    WD_DCHECK(r >= 0 && r < rows);
    return {data + r * stride, static_cast<size_t>(cols)};
  }

  T& operator()(int64_t r, int64_t c) const { return data[r * stride + c]; }

  // Rows [begin, begin + count).
  MatrixView slice(int64_t begin, int64_t count) const {
    WD_DCHECK(begin >= 0 && count >= 0 && begin + count <= rows);
    return {data + begin * stride, count, cols, stride};
  }
};

template <typename T>
class Matrix {
 public:
  Matrix() = default;

  Matrix(int64_t rows, int64_t cols)
      : storage_(static_cast<size_t>(rows * cols) * sizeof(T)), rows_(rows), cols_(cols) {}

  int64_t rows() const { return rows_; }

  int64_t cols() const { return cols_; }

  T* data() { return reinterpret_cast<T*>(storage_.data()); }

  const T* data() const { return reinterpret_cast<const T*>(storage_.data()); }

  std::span<T> row(int64_t r) { return view().row(r); }

  std::span<const T> row(int64_t r) const { return view().row(r); }

  T& operator()(int64_t r, int64_t c) { return data()[r * cols_ + c]; }

  const T& operator()(int64_t r, int64_t c) const { return data()[r * cols_ + c]; }

  MatrixView<T> view() { return {data(), rows_, cols_}; }

  MatrixView<const T> view() const { return {data(), rows_, cols_}; }

 private:
  AlignedBuffer storage_;
  int64_t rows_ = 0;
  int64_t cols_ = 0;
};

}  // namespace wideep
