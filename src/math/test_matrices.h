// Random matrices and packed ones that own their bytes, for the tests of math.
#pragma once

#include "base/matrix.h"
#include "base/random.h"
#include "math/gemm.h"

#include <cstdint>
#include <vector>

namespace wideep::math {

inline Matrix<float> random_matrix(int64_t rows, int64_t cols, uint64_t seed) {
  Random random(seed);
  Matrix<float> m(rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (float& value : m.row(r))
      value = random.symmetric();
  }
  return m;
}

// A row-major f32 checkpoint matrix.
class TestMatrix {
 public:
  TestMatrix(int64_t n, int64_t k, uint64_t seed) : values_(random_matrix(n, k, seed)) {}

  float operator()(int64_t row, int64_t col) const { return values_(row, col); }

  SourceMatrix source() const {
    return {.dtype = SourceMatrix::Dtype::kF32,
            .n = values_.rows(),
            .k = values_.cols(),
            .data = reinterpret_cast<const std::byte*>(values_.data())};
  }

 private:
  Matrix<float> values_;
};

// An fp8 checkpoint matrix: random codes without NaN, random block scales.
class TestFp8 {
 public:
  TestFp8(int64_t n, int64_t k, uint64_t seed) : n_(n), k_(k) {
    Random random(seed);
    for (int64_t i = 0; i < n * k; ++i) {
      const auto code = static_cast<uint8_t>(random.below(256));
      codes_.push_back((code & 0x7F) == 0x7F ? uint8_t{0} : code);
    }
    const int64_t blocks = ((n + 127) / 128) * ((k + 127) / 128);
    for (int64_t i = 0; i < blocks; ++i)
      scales_.push_back((1.5F + random.symmetric()) / 448);
  }

  SourceMatrix source() const {
    return {.dtype = SourceMatrix::Dtype::kFp8,
            .n = n_,
            .k = k_,
            .data = reinterpret_cast<const std::byte*>(codes_.data()),
            .block_scales = scales_.data()};
  }

 private:
  int64_t n_;
  int64_t k_;
  std::vector<uint8_t> codes_;
  std::vector<float> scales_;
};

class Packed {
 public:
  Packed(const SourceMatrix& w, WeightFormat format)
      : storage_(static_cast<size_t>(packed_bytes(format, w.n, w.k))),
        matrix_{.format = format, .n = w.n, .k = w.k, .bytes = storage_.bytes()} {
    pack(w, format, storage_.bytes());
  }

  const PackedMatrix& matrix() const { return matrix_; }

 private:
  AlignedBuffer storage_;
  PackedMatrix matrix_;
};

class PackedGateUp {
 public:
  PackedGateUp(const SourceMatrix& gate, const SourceMatrix& up, WeightFormat format)
      : storage_(static_cast<size_t>(packed_gate_up_bytes(format, gate.n, gate.k))),
        matrix_{.format = format, .n = 2 * gate.n, .k = gate.k, .bytes = storage_.bytes()} {
    pack_gate_up(gate, up, format, storage_.bytes());
  }

  const PackedMatrix& matrix() const { return matrix_; }

 private:
  AlignedBuffer storage_;
  PackedMatrix matrix_;
};

}  // namespace wideep::math
