#include "math/ffn.h"

#include "math/test_matrices.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace wideep::math {
namespace {

constexpr std::array kFormats = {WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kFp8,
                                 WeightFormat::kInt8, WeightFormat::kInt4};

struct Expert {
  Expert(int64_t hidden, int64_t inner, WeightFormat format, uint64_t seed)
      : gate_up(TestMatrix(inner, hidden, seed).source(),
                TestMatrix(inner, hidden, seed + 1).source(),
                format),
        down(TestMatrix(hidden, inner, seed + 2).source(), format),
        weights{.gate_up = gate_up.matrix(), .down = down.matrix()} {}

  PackedGateUp gate_up;
  Packed down;
  FfnWeights weights;
};

// Experts, rows for them, and a place for the results.
struct Problem {
  Problem(WeightFormat format, std::vector<int64_t> counts, RowFormat out_format, Isa isa)
      : hidden(200), inner(90), out_row_format(out_format), rows_of(std::move(counts)) {
    for (size_t e = 0; e < rows_of.size(); ++e) {
      experts.emplace_back(hidden, inner, format, 10 * e + 1);
      total += rows_of[e];
    }
    in_format = input_format(format, Precision::kMixed);
    in = RowBuffer(in_format, total, hidden);
    rows = in.encode(kernels(isa), random_matrix(total, hidden, 99).view());
    out = Matrix<std::byte>(total, row_bytes(out_format, hidden));
    for (int64_t r = 0; r < total; ++r)
      out_pointers.push_back(out.row(r).data());
    size_t first = 0;
    for (size_t e = 0; e < rows_of.size(); ++e) {
      const auto count = static_cast<size_t>(rows_of[e]);
      groups.push_back({.weights = &experts[e].weights,
                        .in = rows.pointers.subspan(first, count),
                        .out = std::span(out_pointers).subspan(first, count)});
      first += count;
    }
  }

  std::vector<float> result(int64_t r) const {
    std::vector<float> values(static_cast<size_t>(hidden));
    reference_decode_row(out_row_format, out.row(r).data(), values);
    return values;
  }

  int64_t hidden;
  int64_t inner;
  int64_t total = 0;
  RowFormat out_row_format;
  RowFormat in_format = RowFormat::kF32;
  std::vector<int64_t> rows_of;
  std::vector<Expert> experts;
  RowBuffer in;
  Rows rows;
  Matrix<std::byte> out;
  std::vector<std::byte*> out_pointers;
  std::vector<FfnGroup> groups;
};

class FfnAt : public testing::TestWithParam<Isa> {};

TEST_P(FfnAt, AgreesWithTheReferenceForGroupsOfEverySize) {
  ThreadPool pool({.num_threads = 2});
  for (const WeightFormat format : kFormats) {
    Problem p(format, {1, 0, 7, 70}, RowFormat::kF32, GetParam());
    Ffn ffn(pool, kernels(GetParam()), RowFormat::kF32, p.total, p.inner);
    ffn.forward(p.groups);
    // The inner row is rounded to the input format of `down`; relative to the norm of the result
    // that costs at most a few units of that format.
    const float unit = format == WeightFormat::kF32                                  ? 0x1p-18F
                       : input_format(format, Precision::kMixed) == RowFormat::kBf16 ? 0x1p-8F
                                                                                     : 0x1p-5F;
    int64_t row = 0;
    for (size_t e = 0; e < p.groups.size(); ++e) {
      for (const std::byte* in : p.groups[e].in) {
        std::vector<float> expected(static_cast<size_t>(p.hidden));
        reference_ffn(p.experts[e].weights, p.in_format, in, expected);
        const std::vector<float> got = p.result(row++);
        float norm = 0;
        float error = 0;
        for (size_t c = 0; c < expected.size(); ++c) {
          norm += expected[c] * expected[c];
          error += (got[c] - expected[c]) * (got[c] - expected[c]);
        }
        ASSERT_LE(std::sqrt(error), unit * std::sqrt(norm)) << name(format) << " row " << row - 1;
      }
    }
  }
}

TEST_P(FfnAt, GivesARowTheSameBitsAloneAndInCompanyAndOnAnyThreads) {
  for (const WeightFormat format : kFormats) {
    Problem p(format, {65, 3}, RowFormat::kF32, GetParam());
    ThreadPool two({.num_threads = 2});
    Ffn ffn(two, kernels(GetParam()), RowFormat::kF32, p.total, p.inner);
    ffn.forward(p.groups);
    std::vector<std::vector<float>> together;
    for (int64_t r = 0; r < p.total; ++r)
      together.push_back(p.result(r));
    ThreadPool one({.num_threads = 1});
    Ffn single(one, kernels(GetParam()), RowFormat::kF32, p.total, p.inner);
    int64_t row = 0;
    for (const FfnGroup& group : p.groups) {
      for (size_t r = 0; r < group.in.size(); ++r, ++row) {
        const std::array alone = {FfnGroup{.weights = group.weights,
                                           .in = group.in.subspan(r, 1),
                                           .out = group.out.subspan(r, 1)}};
        single.forward(alone);
        ASSERT_EQ(p.result(row), together[static_cast<size_t>(row)])
            << name(format) << " row " << row;
      }
    }
  }
}

TEST_P(FfnAt, WritesBf16RowsAsTheRoundedF32Rows) {
  ThreadPool pool({.num_threads = 1});
  Problem wide(WeightFormat::kBf16, {5}, RowFormat::kF32, GetParam());
  Problem narrow(WeightFormat::kBf16, {5}, RowFormat::kBf16, GetParam());
  Ffn(pool, kernels(GetParam()), RowFormat::kF32, 5, wide.inner).forward(wide.groups);
  Ffn(pool, kernels(GetParam()), RowFormat::kBf16, 5, narrow.inner).forward(narrow.groups);
  for (int64_t r = 0; r < 5; ++r) {
    std::vector<float> rounded = wide.result(r);
    for (float& value : rounded)
      value = bf16_to_f32(f32_to_bf16(value));
    EXPECT_EQ(narrow.result(r), rounded);
  }
}

TEST_P(FfnAt, WritesRowsForOthersWithTheSameBits) {
  ThreadPool pool({.num_threads = 2});
  for (const RowFormat format : {RowFormat::kF32, RowFormat::kBf16}) {
    Problem own(WeightFormat::kBf16, {5, 2}, format, GetParam());
    Problem shared(WeightFormat::kBf16, {5, 2}, format, GetParam());
    const std::vector<uint8_t> flags = {1, 0, 1, 1, 1, 0, 1};
    shared.groups[0].out_is_far = std::span(flags).first(5);
    shared.groups[1].out_is_far = std::span(flags).subspan(5);
    Ffn(pool, kernels(GetParam()), format, 7, own.inner).forward(own.groups);
    Ffn(pool, kernels(GetParam()), format, 7, shared.inner).forward(shared.groups);
    for (int64_t r = 0; r < 7; ++r)
      EXPECT_EQ(shared.result(r), own.result(r)) << "row " << r;
  }
}

// More rows of an expert than one pass over its panels serves.
TEST_P(FfnAt, GivesTheSameBitsBeyondOneBlockOfRows) {
  if (GetParam() == Isa::kScalar) GTEST_SKIP() << "no blocks";
  ThreadPool pool({.num_threads = 3});
  for (const WeightFormat format : kFormats) {
    Problem p(format, {3, 2 * kRowBlockMax + 1}, RowFormat::kF32, GetParam());
    Ffn ffn(pool, kernels(GetParam()), RowFormat::kF32, p.total, p.inner);
    ffn.forward(p.groups);
    const auto bytes = static_cast<int64_t>(p.experts[0].weights.gate_up.bytes.size() +
                                            p.experts[0].weights.down.bytes.size());
    EXPECT_EQ(ffn.weight_bytes_read(), (1 + 3) * bytes) << name(format);
    std::vector<std::vector<float>> together;
    for (int64_t r = 0; r < p.total; ++r)
      together.push_back(p.result(r));
    const FfnGroup& many = p.groups[1];
    for (const size_t r : {size_t{0}, size_t{255}, size_t{256}, size_t{400}, size_t{512}}) {
      const std::array alone = {FfnGroup{
          .weights = many.weights, .in = many.in.subspan(r, 1), .out = many.out.subspan(r, 1)}};
      ffn.forward(alone);
      ASSERT_EQ(p.result(3 + static_cast<int64_t>(r)), together[3 + r])
          << name(format) << " row " << r;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, FfnAt, testing::ValuesIn(supported_isas()), [](const auto& info) {
  return std::string(name(info.param));
});

TEST(Ffn, CountsTheBytesOfEveryPanelItReads) {
  ThreadPool pool({.num_threads = 2});
  Problem p(WeightFormat::kBf16, {1, 0, 64}, RowFormat::kF32, Isa::kScalar);
  Ffn ffn(pool, reference_kernels(), RowFormat::kF32, p.total, p.inner);
  ffn.forward(p.groups);
  const FfnWeights& w = p.experts[0].weights;
  const auto bytes = static_cast<int64_t>(w.gate_up.bytes.size() + w.down.bytes.size());
  EXPECT_EQ(ffn.weight_bytes_read(), 2 * bytes);
}

TEST(Ffn, DoesNothingWithoutGroupsOrRows) {
  ThreadPool pool({.num_threads = 2});
  Problem p(WeightFormat::kBf16, {0, 0}, RowFormat::kF32, Isa::kScalar);
  Ffn ffn(pool, reference_kernels(), RowFormat::kF32, 4, p.inner);
  ffn.forward(p.groups);
  ffn.forward({});
  EXPECT_EQ(ffn.weight_bytes_read(), 0);
}

}  // namespace
}  // namespace wideep::math
