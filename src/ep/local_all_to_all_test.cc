#include "ep/local_all_to_all.h"

#include "base/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace wideep::ep {
namespace {

constexpr int64_t kHidden = 96;
constexpr int64_t kExperts = 6;
constexpr int64_t kTopK = 3;
constexpr int64_t kTokensMax = 8;

struct Case {
  std::vector<ExpertId> experts;
  std::vector<float> weights;
  Matrix<float> h;
  Matrix<float> shared;
  Matrix<float> x;

  explicit Case(int64_t num_tokens, uint64_t seed = 1)
      : h(num_tokens, kHidden), shared(num_tokens, kHidden), x(num_tokens, kHidden) {
    Random random(seed);
    for (int64_t t = 0; t < num_tokens; ++t) {
      const auto first = static_cast<int32_t>(random.below(kExperts));
      for (int32_t k = 0; k < kTopK; ++k) {
        experts.push_back(ExpertId{(first + 2 * k + 1) % static_cast<int32_t>(kExperts)});
        weights.push_back(random.symmetric());
      }
      for (int64_t c = 0; c < kHidden; ++c) {
        h(t, c) = random.symmetric();
        shared(t, c) = random.symmetric();
        x(t, c) = random.symmetric();
      }
    }
  }

  Routing routing() const { return {h.rows(), kTopK, experts, weights}; }
};

// Expert e multiplies a row by e + 1.
void run_experts(const ExpertBatch& batch, const RowFormats& formats) {
  const math::Kernels& kernels = math::reference_kernels();
  std::vector<float> row(kHidden);
  for (const ExpertRows& rows : batch.experts) {
    ASSERT_EQ(rows.in.size(), rows.out.size());
    for (size_t i = 0; i < rows.in.size(); ++i) {
      kernels.decode_row(formats.input, rows.in[i], kHidden, row.data());
      for (float& value : row)
        value *= static_cast<float>(index(rows.slot) + 1);
      kernels.encode_row(formats.combine, row.data(), kHidden, rows.out[i]);
    }
  }
}

class LocalExchange : public testing::TestWithParam<RowFormats> {};

TEST_P(LocalExchange, BringsEveryTokenHomeInKOrderWithTheSharedExpertLast) {
  const RowFormats formats = GetParam();
  ThreadPool pool({.num_threads = 2});
  const math::Kernels& kernels = math::reference_kernels();
  LocalAllToAll exchange(pool, kernels, {formats, kHidden, kExperts, kTopK, kTokensMax});
  for (const int64_t num_tokens : {0, 1, 8, 3}) {
    Case c(num_tokens, static_cast<uint64_t>(num_tokens));
    Matrix<float> expected(num_tokens, kHidden);
    std::vector<std::byte> wire(static_cast<size_t>(math::row_bytes(formats.dispatch, kHidden)));
    std::vector<float> row(kHidden);
    for (int64_t t = 0; t < num_tokens; ++t) {
      math::reference_encode_row(formats.dispatch, c.h.row(t), wire.data());
      math::reference_decode_row(formats.dispatch, wire.data(), row);
      for (int64_t col = 0; col < kHidden; ++col) {
        double sum = 0;
        for (int64_t k = 0; k < kTopK; ++k) {
          const auto pair = static_cast<size_t>(t * kTopK + k);
          sum += c.weights[pair] * row[static_cast<size_t>(col)] * (index(c.experts[pair]) + 1);
        }
        expected(t, col) = static_cast<float>(c.x(t, col) + sum + c.shared(t, col));
      }
    }
    ASSERT_TRUE(exchange.start_dispatch(LayerId{0}, c.h.view(), c.routing()));
    while (true) {
      const auto batch = exchange.next_experts();
      ASSERT_TRUE(batch);
      if (batch->experts.empty()) break;
      run_experts(*batch, formats);
      ASSERT_TRUE(exchange.finish(*batch));
    }
    ASSERT_TRUE(exchange.combine(c.shared.view(), c.x.view()));
    // Values are below 1 * 6 per addend; narrow rows round to 2^-8 of it.
    const double tolerance = formats.input == math::RowFormat::kF32 ? 1e-5 : 0.1;
    for (int64_t t = 0; t < num_tokens; ++t) {
      for (int64_t col = 0; col < kHidden; ++col)
        ASSERT_NEAR(c.x(t, col), expected(t, col), tolerance) << "token " << t << " col " << col;
    }
  }
}

using math::RowFormat;

TEST(LocalExchangeLoad, CountsRowsOfLayersAsAGroupOfOneDoes) {
  ThreadPool pool({.num_threads = 1});
  LocalAllToAll exchange(pool, math::reference_kernels(),
                         {.hidden = kHidden,
                          .num_experts = kExperts,
                          .top_k = kTopK,
                          .tokens_max = kTokensMax,
                          .num_layers = 2});
  const Case data(5);
  for (const int32_t layer : {1, 1, 7}) {  // what is beyond num_layers is not counted
    ASSERT_TRUE(exchange.start_dispatch(LayerId{layer}, data.h.view(), data.routing()));
    ASSERT_TRUE(exchange.next_experts());
  }
  EXPECT_EQ(exchange.load().sent(LayerId{0}, RankId{0}), 0);
  EXPECT_EQ(exchange.load().sent(LayerId{1}, RankId{0}), 2 * 5 * kTopK);
  for (int32_t e = 0; e < kExperts; ++e)
    EXPECT_EQ(exchange.load().computed(LayerId{1}, SlotId{e}),
              2 * std::ranges::count(data.experts, ExpertId{e}));
}

INSTANTIATE_TEST_SUITE_P(
    Formats,
    LocalExchange,
    testing::Values(RowFormats{RowFormat::kF32, RowFormat::kF32, RowFormat::kF32},
                    RowFormats{RowFormat::kBf16, RowFormat::kBf16, RowFormat::kBf16},
                    RowFormats{RowFormat::kInt8, RowFormat::kInt8, RowFormat::kBf16},
                    RowFormats{RowFormat::kFp8, RowFormat::kBf16, RowFormat::kF32}));

}  // namespace
}  // namespace wideep::ep
