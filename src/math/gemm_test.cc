#include "math/gemm.h"

#include "base/thread_pool.h"
#include "math/panel_product.h"
#include "math/test_matrices.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace wideep::math {
namespace {

struct Pairing {
  WeightFormat weights;
  RowFormat rows;
};

constexpr std::array kPairings = {
    Pairing{WeightFormat::kF32, RowFormat::kF32},  Pairing{WeightFormat::kBf16, RowFormat::kF32},
    Pairing{WeightFormat::kFp8, RowFormat::kF32},  Pairing{WeightFormat::kBf16, RowFormat::kBf16},
    Pairing{WeightFormat::kFp8, RowFormat::kBf16}, Pairing{WeightFormat::kInt8, RowFormat::kInt8},
    Pairing{WeightFormat::kInt4, RowFormat::kInt8}};

std::string label(const Pairing& pairing, Isa isa) {
  return std::string(name(pairing.weights)) + " x " + std::string(name(pairing.rows)) + " " +
         std::string(name(isa));
}

// Sum of |x w| of each output: what rounding errors are proportional to.
Matrix<float> magnitudes(const PackedMatrix& w, const Rows& x) {
  Matrix<float> rows(static_cast<int64_t>(x.pointers.size()), w.k);
  for (int64_t r = 0; r < rows.rows(); ++r)
    reference_decode_row(x.format, x.pointers[static_cast<size_t>(r)], rows.row(r));
  Matrix<float> out(rows.rows(), w.n);
  std::vector<float> weights(static_cast<size_t>(w.k));
  for (int64_t c = 0; c < w.n; ++c) {
    for (int64_t k = 0; k < w.k; ++k)
      weights[static_cast<size_t>(k)] = unpack_value(w, c, k);
    for (int64_t r = 0; r < rows.rows(); ++r) {
      for (int64_t k = 0; k < w.k; ++k)
        out(r, c) += std::abs(rows(r, k) * weights[static_cast<size_t>(k)]);
    }
  }
  return out;
}

class Gemm : public testing::TestWithParam<Isa> {
 protected:
  const Kernels& table() const { return kernels(GetParam()); }
};

TEST_P(Gemm, AgreesWithDoublePrecisionForEveryFormatShapeAndNumberOfRows) {
  struct Shape {
    int64_t n;
    int64_t k;
  };

  uint64_t seed = 1;
  for (const Pairing& pairing : kPairings) {
    for (const Shape shape : {Shape{1, 1}, Shape{64, 64}, Shape{100, 130}, Shape{193, 449}}) {
      const TestMatrix source(shape.n, shape.k, ++seed);
      const Packed w(source.source(), pairing.weights);
      const Matrix<float> x = random_matrix(100, shape.k, ++seed);
      RowBuffer buffer(pairing.rows, 100, shape.k);
      const Rows all = buffer.encode(table(), x.view());
      Matrix<float> expected(100, shape.n);
      reference_gemm(w.matrix(), all, expected.view());
      const Matrix<float> magnitude = magnitudes(w.matrix(), all);
      for (const int64_t rows : {0, 1, 2, 3, 5, 6, 7, 12, 13, 33, 64, 100}) {
        const Rows some = buffer.encode(table(), x.view().slice(0, rows));
        Matrix<float> out(rows, shape.n);
        gemm(table(), w.matrix(), some, {.begin = 0, .end = w.matrix().num_panels()}, out.view());
        const float error = static_cast<float>(shape.k + 8) * 0x1p-24F;
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < shape.n; ++c) {
            ASSERT_NEAR(out(r, c), expected(r, c), error * magnitude(r, c))
                << label(pairing, GetParam()) << " n " << shape.n << " k " << shape.k << " rows "
                << rows << " at " << r << ", " << c;
          }
        }
      }
    }
  }
}

TEST_P(Gemm, GivesARowTheSameBitsWhateverTheRowsAroundItThePanelsAndTheThreads) {
  constexpr int64_t kN = 260;
  constexpr int64_t kK = 1100;
  for (const Pairing& pairing : kPairings) {
    const Packed w(TestMatrix(kN, kK, 21).source(), pairing.weights);
    const Matrix<float> x = random_matrix(77, kK, 22);
    RowBuffer buffer(pairing.rows, 77, kK);
    const Rows rows = buffer.encode(table(), x.view());
    Matrix<float> one_by_one(77, kN);
    for (int64_t r = 0; r < 77; ++r) {
      const Rows row{.format = rows.format,
                     .cols = kK,
                     .pointers = rows.pointers.subspan(static_cast<size_t>(r), 1)};
      for (int64_t panel = 0; panel < w.matrix().num_panels(); ++panel)
        gemm(table(), w.matrix(), row, {.begin = panel, .end = panel + 1},
             one_by_one.view().slice(r, 1));
    }
    const auto expect_same = [&](const Matrix<float>& out, int64_t first, const char* how) {
      for (int64_t r = 0; r < out.rows(); ++r) {
        ASSERT_EQ(std::memcmp(out.row(r).data(), one_by_one.row(first + r).data(), kN * 4), 0)
            << label(pairing, GetParam()) << " row " << r << ", " << how;
      }
    };
    for (const int64_t count : {2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 33, 64, 77}) {
      const int64_t first = 77 - count;
      const Rows some{.format = rows.format,
                      .cols = kK,
                      .pointers = rows.pointers.subspan(static_cast<size_t>(first))};
      Matrix<float> out(count, kN);
      gemm(table(), w.matrix(), some, {.begin = 0, .end = 2}, out.view());
      gemm(table(), w.matrix(), some, {.begin = 2, .end = w.matrix().num_panels()}, out.view());
      expect_same(out, first, "together");
    }
    for (const int threads : {1, 2, 3}) {
      ThreadPool pool({.num_threads = threads});
      Matrix<float> out(77, kN);
      parallel_gemm(pool, table(), w.matrix(), rows, out.view());
      expect_same(out, 0, "by threads");
    }
  }
}

TEST_P(Gemm, GivesTheSameBitsBeyondOneBlockOfRows) {
  if (GetParam() == Isa::kScalar) GTEST_SKIP() << "no blocks";
  constexpr int64_t kRows = 2 * kRowBlockMax + 3;
  constexpr int64_t kK = 320;
  ThreadPool pool({.num_threads = 2});
  for (const Pairing& pairing : kPairings) {
    const Packed w(TestMatrix(64, kK, 31).source(), pairing.weights);
    RowBuffer buffer(pairing.rows, kRows, kK);
    const Rows rows = buffer.encode(table(), random_matrix(kRows, kK, 32).view());
    Matrix<float> all(kRows, 64);
    Matrix<float> by_threads(kRows, 64);
    Matrix<float> one(1, 64);
    gemm(table(), w.matrix(), rows, {.begin = 0, .end = 1}, all.view());
    parallel_gemm(pool, table(), w.matrix(), rows, by_threads.view());
    ASSERT_EQ(std::memcmp(by_threads.data(), all.data(), kRows * 64 * 4), 0)
        << label(pairing, GetParam());
    for (const int64_t r : {0, 15, 16, 255, 256, 300, 511, 512, 514}) {
      gemm(table(), w.matrix(), rows.slice(r, 1), {.begin = 0, .end = 1}, one.view());
      ASSERT_EQ(std::memcmp(all.row(r).data(), one.row(0).data(), 64 * 4), 0)
          << label(pairing, GetParam()) << " row " << r;
    }
  }
}

TEST_P(Gemm, AddsEachValueOnceItIsWhole) {
  constexpr int64_t kN = 100;
  constexpr int64_t kK = 700;
  ThreadPool pool({.num_threads = 3});
  for (const Pairing& pairing : kPairings) {
    const Packed w(TestMatrix(kN, kK, 61).source(), pairing.weights);
    for (const int64_t rows : {1, 9, 70}) {
      RowBuffer buffer(pairing.rows, rows, kK);
      const Rows x = buffer.encode(table(), random_matrix(rows, kK, 62).view());
      Matrix<float> product(rows, kN);
      parallel_gemm(pool, table(), w.matrix(), x, product.view());
      const Matrix<float> before = random_matrix(rows, kN, 63);
      Matrix<float> sum = random_matrix(rows, kN, 63);
      parallel_gemm(pool, table(), w.matrix(), x, sum.view(), Write::kAdd);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < kN; ++c)
          ASSERT_EQ(sum(r, c), before(r, c) + product(r, c)) << label(pairing, GetParam());
      }
    }
  }
}

TEST_P(Gemm, TakesRowsFromAnywhere) {
  for (const Pairing& pairing : kPairings) {
    const Packed w(TestMatrix(64, 128, 41).source(), pairing.weights);
    RowBuffer buffer(pairing.rows, 20, 128);
    const Rows rows = buffer.encode(table(), random_matrix(20, 128, 42).view());
    std::vector<const std::byte*> shuffled;
    for (size_t r = 0; r < 20; ++r)
      shuffled.push_back(rows.pointers[r * 7 % 20]);
    Matrix<float> straight(20, 64);
    Matrix<float> gathered(20, 64);
    gemm(table(), w.matrix(), rows, {.begin = 0, .end = 1}, straight.view());
    gemm(table(), w.matrix(), {.format = rows.format, .cols = 128, .pointers = shuffled},
         {.begin = 0, .end = 1}, gathered.view());
    for (int64_t r = 0; r < 20; ++r)
      ASSERT_EQ(std::memcmp(gathered.row(r).data(), straight.row(r * 7 % 20).data(), 64 * 4), 0);
  }
}

TEST_P(Gemm, LosesNoMoreThanDenormalsToInstructionsThatFlushThem) {
  // Input 0 meets the least normal value, which counts; the others a denormal, which vdpbf16ps and
  // tiles may take for zero. All sums are exact.
  constexpr int64_t kK = 64;
  Matrix<float> tiny(1, kK);
  std::ranges::fill(tiny.row(0), 0x1p-130F);
  tiny(0, 0) = 0x1p-126F;
  const Packed w({.dtype = SourceMatrix::Dtype::kF32,
                  .n = 1,
                  .k = kK,
                  .data = reinterpret_cast<const std::byte*>(tiny.data())},
                 WeightFormat::kBf16);
  Matrix<float> x(1, kK);
  std::ranges::fill(x.row(0), 0x1p120F);
  for (const RowFormat format : {RowFormat::kF32, RowFormat::kBf16}) {
    RowBuffer buffer(format, 1, kK);
    Matrix<float> out(1, 1);
    gemm(table(), w.matrix(), buffer.encode(table(), x.view()), {.begin = 0, .end = 1}, out.view());
    const float all = 0x1p-6F + 63 * 0x1p-10F;
    if (format == RowFormat::kF32) {
      EXPECT_EQ(out(0, 0), all);
    } else {
      EXPECT_TRUE(out(0, 0) == all || out(0, 0) == 0x1p-6F) << out(0, 0);
    }
  }
}

TEST_P(Gemm, MultipliesAll256Fp8CodesExactly) {
  // Column c of the product picks input c of row c: W [256, 256] has code c in row c, and x = 1.
  std::vector<uint8_t> codes(256 * 256, 0);
  for (size_t c = 0; c < 256; ++c)
    codes[c * 256 + c] = static_cast<uint8_t>(c);
  const std::vector<float> scales = {2.0F, 1.0F, 1.0F, 0.5F};
  const Packed w({.dtype = SourceMatrix::Dtype::kFp8,
                  .n = 256,
                  .k = 256,
                  .data = reinterpret_cast<const std::byte*>(codes.data()),
                  .block_scales = scales.data()},
                 WeightFormat::kFp8);
  for (const RowFormat format : {RowFormat::kF32, RowFormat::kBf16}) {
    for (const int64_t count : {1, 5, 16, 40}) {
      Matrix<float> x(count, 256);
      for (int64_t r = 0; r < count; ++r) {
        for (float& value : x.row(r))
          value = 1.0F;
      }
      RowBuffer buffer(format, count, 256);
      Matrix<float> out(count, 256);
      gemm(table(), w.matrix(), buffer.encode(table(), x.view()), {.begin = 0, .end = 4},
           out.view());
      for (int64_t c = 0; c < 256; ++c) {
        const float value = fp8_to_f32(static_cast<uint8_t>(c)) * (c < 128 ? 2.0F : 0.5F);
        if (std::isnan(value)) {
          ASSERT_TRUE(std::isnan(out(count - 1, c))) << c;
        } else {
          ASSERT_EQ(out(count - 1, c), value) << c << " " << name(format);
        }
      }
    }
  }
}

TEST_P(Gemm, SumsInt8ExactlyUpToItsExtremes) {
  constexpr int64_t kK = kInputsMax;
  const std::vector<int8_t> codes(kK, -128);
  const std::vector<float> scale = {1.0F};
  const Packed w({.dtype = SourceMatrix::Dtype::kInt8,
                  .n = 1,
                  .k = kK,
                  .data = reinterpret_cast<const std::byte*>(codes.data()),
                  .channel_scales = scale.data()},
                 WeightFormat::kInt8);
  Matrix<float> x(1, kK);
  for (float& value : x.row(0))
    value = 127.0F;
  RowBuffer buffer(RowFormat::kInt8, 1, kK);
  Matrix<float> out(1, 1);
  gemm(table(), w.matrix(), buffer.encode(table(), x.view()), {.begin = 0, .end = 1}, out.view());
  EXPECT_EQ(out(0, 0), static_cast<float>(-128 * 127 * kK));
}

TEST_P(Gemm, SumsInt4ExactlyUpToItsExtremes) {
  constexpr int64_t kK = 1024;
  const std::vector<uint16_t> scales(kK / kInt4Group, f32_to_bf16(1.0F));
  for (const int code : {7, -8}) {
    const auto both = static_cast<std::byte>((code + 8) * 0x11);
    const std::vector<std::byte> codes(kK / 2, both);
    const Packed w({.dtype = SourceMatrix::Dtype::kInt4,
                    .n = 1,
                    .k = kK,
                    .data = codes.data(),
                    .group_scales = scales.data()},
                   WeightFormat::kInt4);
    ASSERT_EQ(unpack_value(w.matrix(), 0, 0), static_cast<float>(code));
    for (const float value : {127.0F, -127.0F}) {
      Matrix<float> x(5, kK);
      for (int64_t r = 0; r < x.rows(); ++r)
        std::ranges::fill(x.row(r), value);
      RowBuffer buffer(RowFormat::kInt8, x.rows(), kK);
      Matrix<float> out(x.rows(), 1);
      gemm(table(), w.matrix(), buffer.encode(table(), x.view()), {.begin = 0, .end = 1},
           out.view());
      for (int64_t r = 0; r < x.rows(); ++r)
        EXPECT_EQ(out(r, 0), static_cast<float>(code) * value * kK);
    }
  }
}

// What gemm_int-inl.h says of its sums: int8 is the same at every level, int4 from AVX2 on (plain
// C++ has no fma). Ranks of different levels still refuse each other: their other numbers differ.
TEST_P(Gemm, OfWholeNumbersGivesTheBitsOfEveryOtherLevel) {
  constexpr int64_t kK = 1100;
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    const Isa judge = format == WeightFormat::kInt8 ? Isa::kScalar : Isa::kAvx2;
    if (!is_supported(judge) || GetParam() < judge) continue;
    const Packed w(TestMatrix(100, kK, 51).source(), format);
    RowBuffer buffer(RowFormat::kInt8, 13, kK);
    const Rows rows = buffer.encode(table(), random_matrix(13, kK, 52).view());
    Matrix<float> expected(13, 100);
    Matrix<float> out(13, 100);
    gemm(kernels(judge), w.matrix(), rows, {.begin = 0, .end = 2}, expected.view());
    gemm(table(), w.matrix(), rows, {.begin = 0, .end = 2}, out.view());
    ASSERT_EQ(std::memcmp(out.data(), expected.data(), 13 * 100 * 4), 0) << name(format);
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, Gemm, testing::ValuesIn(supported_isas()), [](const auto& info) {
  return std::string(name(info.param));
});

TEST(RowBuffer, GivesTheSameRowsWithAndWithoutThreads) {
  const Matrix<float> x = random_matrix(9, 100, 3);
  ThreadPool pool({.num_threads = 2});
  RowBuffer alone(RowFormat::kInt8, 9, 100);
  RowBuffer together(RowFormat::kInt8, 9, 100);
  const Kernels& table = kernels(detect_isa());
  const Rows a = alone.encode(table, x.view());
  const Rows b = together.encode(pool, table, x.view());
  ASSERT_EQ(a.pointers.size(), b.pointers.size());
  const auto bytes = static_cast<size_t>(row_bytes(RowFormat::kInt8, 100));
  for (size_t r = 0; r < 9; ++r)
    EXPECT_EQ(std::memcmp(a.pointers[r], b.pointers[r], bytes), 0);
}

}  // namespace
}  // namespace wideep::math
