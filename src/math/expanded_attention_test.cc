#include "math/expanded_attention.h"

#include "base/matrix.h"
#include "base/memory.h"
#include "base/random.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace wideep::math {
namespace {

struct Widths {
  int64_t heads;
  int64_t latent;
  int64_t rope;
  int64_t nope;
  int64_t value;
};

constexpr std::array<Widths, 4> kWidths = {{
    {.heads = 3, .latent = 128, .rope = 64, .nope = 128, .value = 128},
    {.heads = 4, .latent = 48, .rope = 16, .nope = 32, .value = 32},   // latents need padding
    {.heads = 2, .latent = 160, .rope = 32, .nope = 32, .value = 48},  // and no whole panel
    {.heads = 1, .latent = 64, .rope = 10, .nope = 7, .value = 20},    // nothing is round
}};

ExpandedShape shape_of(const Widths& w, CacheFormat format) {
  ExpandedShape shape{.format = format,
                      .num_heads = w.heads,
                      .latent_width = w.latent,
                      .rope_width = w.rope,
                      .nope_width = w.nope,
                      .value_width = w.value};
  shape.token_values = round_up(w.latent + w.rope, 64 / cache_value_bytes(format));
  shape.scale = 1.0F / std::sqrt(static_cast<float>(shape.key_width()));
  return shape;
}

std::vector<ExpandedShape> shapes() {
  std::vector<ExpandedShape> shapes;
  for (const Widths& widths : kWidths) {
    shapes.push_back(shape_of(widths, CacheFormat::kF32));
    shapes.push_back(shape_of(widths, CacheFormat::kBf16));
  }
  return shapes;
}

// Random W_UK and W_UV of every head, packed as bf16 (exact) for either format of rows.
class Weights {
 public:
  Weights(const ExpandedShape& shape, uint64_t seed) : random_(seed) {
    for (int64_t head = 0; head < shape.num_heads; ++head) {
      keys_.push_back(make(shape.nope_width, shape.latent_width));
      values_.push_back(make(shape.value_width, shape.latent_width));
    }
  }

  ExpansionWeights view() const { return {.keys = keys_, .values = values_}; }

 private:
  PackedMatrix make(int64_t n, int64_t k) {
    std::vector<float> w;
    for (int64_t i = 0; i < n * k; ++i)
      w.push_back(random_.symmetric() * 1.5F / std::sqrt(static_cast<float>(k)));
    AlignedBuffer& bytes =
        memory_.emplace_back(static_cast<size_t>(packed_bytes(WeightFormat::kBf16, n, k)));
    pack({.dtype = SourceMatrix::Dtype::kF32,
          .n = n,
          .k = k,
          .data = reinterpret_cast<const std::byte*>(w.data())},
         WeightFormat::kBf16, bytes.bytes());
    return {.format = WeightFormat::kBf16, .n = n, .k = k, .bytes = bytes.bytes()};
  }

  Random random_;
  std::vector<AlignedBuffer> memory_;
  std::vector<PackedMatrix> keys_;
  std::vector<PackedMatrix> values_;
};

// Queries and cached latents of one sequence; what lies behind its rows in the cache is NaN.
class Sequence {
 public:
  Sequence(const ExpandedShape& shape, int64_t length, uint64_t seed)
      : out(length, shape.num_heads * shape.value_width),
        shape_(shape),
        q_(length, shape.num_heads * shape.key_width()),
        rows_(length, shape.latent_width + shape.rope_width) {
    Random random(seed);
    for (int64_t t = 0; t < length; ++t) {
      for (float& value : rows_.row(t))
        value = random.symmetric() * 1.5F;
      for (float& value : q_.row(t))
        value = random.symmetric() * 2;
    }
  }

  int64_t length() const { return rows_.rows(); }

  float& latent(int64_t position, int64_t index) { return rows_(position, index); }

  // Lays positions [0, visible) out in blocks.
  void lay_out(int64_t block_tokens, int64_t visible) {
    const int64_t row_bytes = shape_.token_values * cache_value_bytes(shape_.format);
    const int64_t num_blocks = (visible + block_tokens - 1) / block_tokens;
    memory_ = AlignedBuffer(static_cast<size_t>(num_blocks * block_tokens * row_bytes));
    std::memset(memory_.data(), 0xFF, memory_.size());
    blocks_.clear();
    for (int64_t b = 0; b < num_blocks; ++b)
      blocks_.push_back(memory_.data() + (num_blocks - 1 - b) * block_tokens * row_bytes);
    for (int64_t t = 0; t < visible; ++t) {
      std::byte* row = memory_.data() +
                       (num_blocks - 1 - t / block_tokens) * block_tokens * row_bytes +
                       t % block_tokens * row_bytes;
      if (shape_.format == CacheFormat::kF32) {
        std::memcpy(row, rows_.row(t).data(), rows_.row(t).size_bytes());
        continue;
      }
      for (size_t i = 0; i < rows_.row(t).size(); ++i) {
        const uint16_t bits = f32_to_bf16(rows_.row(t)[i]);
        std::memcpy(row + i * 2, &bits, 2);
      }
    }
  }

  AttentionChunk chunk(int64_t begin, int64_t end) {
    return {.q = q_.row(begin).data(),
            .out = out.row(begin).data(),
            .position = begin,
            .count = end - begin,
            .blocks = blocks_};
  }

  Matrix<float> out;

 private:
  ExpandedShape shape_;
  Matrix<float> q_;
  Matrix<float> rows_;
  AlignedBuffer memory_;
  std::vector<const std::byte*> blocks_;
};

::testing::AssertionResult same_rows(const Matrix<float>& a,
                                     const Matrix<float>& b,
                                     int64_t begin,
                                     int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    if (std::memcmp(a.row(r).data(), b.row(r).data(), a.row(r).size_bytes()) != 0)
      return ::testing::AssertionFailure() << "row " << r << " differs";
  }
  return ::testing::AssertionSuccess();
}

class ExpandedAttentionOf : public ::testing::TestWithParam<Isa> {
 protected:
  bool is_slow() const { return GetParam() == Isa::kScalar; }
};

INSTANTIATE_TEST_SUITE_P(Levels,
                         ExpandedAttentionOf,
                         ::testing::ValuesIn(supported_isas()),
                         [](auto& i) { return std::string(name(i.param)); });

TEST_P(ExpandedAttentionOf, AgreesWithTheReference) {
  for (const ExpandedShape& shape : shapes()) {
    const Weights weights(shape, 1);
    for (const int64_t length : {1, 2, 17, 128, 129, 511, 512, 513, 1100}) {
      if (is_slow() && length > 600) continue;
      SCOPED_TRACE(length);
      Sequence fast(shape, length, 3);
      Sequence slow(shape, length, 3);
      fast.lay_out(32, length);
      slow.lay_out(32, length);
      const int64_t begin = std::max<int64_t>(0, length - 21);
      ThreadPool pool({.num_threads = 2});
      ExpandedAttention attention(pool, kernels(GetParam()), shape, 32, 21);
      const AttentionChunk chunk = fast.chunk(begin, length);
      attention.forward(weights.view(), {&chunk, 1});
      const AttentionChunk reference = slow.chunk(begin, length);
      reference_expanded_attention(shape, weights.view(), 32, {&reference, 1});
      double difference = 0;
      double size = 0;
      for (int64_t r = begin; r < length; ++r) {
        for (int64_t c = 0; c < fast.out.cols(); ++c) {
          const double d = std::abs(double{fast.out(r, c)} - double{slow.out(r, c)});
          difference = d <= difference ? difference : d;  // keeps NaN
          size = std::max(size, std::abs(double{slow.out(r, c)}));
        }
      }
      // bf16: queries, keys, values and probabilities are off by 2^-9 each.
      EXPECT_LT(difference / size, shape.format == CacheFormat::kF32 ? 2e-5 : 3e-2);
    }
  }
}

// The promise: however the queries are cut into chunks and calls, whatever the block size, the
// company and the number of threads, the bits are the same.
TEST_P(ExpandedAttentionOf, GivesTheSameBitsHoweverTheWorkIsCut) {
  Random random(5);
  for (const ExpandedShape& shape : shapes()) {
    const Weights weights(shape, 2);
    const auto length = static_cast<int64_t>(520 + random.below(is_slow() ? 10 : 700));
    Sequence expected(shape, length, 6);
    {
      ThreadPool pool({.num_threads = 1});
      ExpandedAttention attention(pool, kernels(GetParam()), shape, 16, 1);
      for (int64_t t = 0; t < length; t += is_slow() ? 97 : 41) {
        expected.lay_out(16, t + 1);
        const AttentionChunk chunk = expected.chunk(t, t + 1);
        attention.forward(weights.view(), {&chunk, 1});
      }
    }
    for (int round = 0; round < 3; ++round) {
      const auto block_tokens = static_cast<int64_t>(16 * (1 + random.below(32)));
      const uint64_t count_max = round == 0 ? 2000 : 400;
      ThreadPool pool({.num_threads = static_cast<int>(1 + random.below(9))});
      ExpandedAttention attention(pool, kernels(GetParam()), shape, block_tokens, 2000);
      Sequence got(shape, length, 6);
      Sequence other(shape, 40, 7);
      got.lay_out(block_tokens, length);
      other.lay_out(block_tokens, 40);
      for (int64_t done = 0; done < length;) {
        const int64_t count =
            std::min(length - done, static_cast<int64_t>(1 + random.below(count_max)));
        const std::array chunks = {other.chunk(7, 29), got.chunk(done, done + count)};
        attention.forward(weights.view(), std::span(chunks).last(1 + random.below(2)));
        done += count;
      }
      for (int64_t t = 0; t < length; t += is_slow() ? 97 : 41)
        ASSERT_TRUE(same_rows(got.out, expected.out, t, t + 1))
            << "round " << round << " blocks of " << block_tokens << " threads "
            << pool.num_threads();
    }
  }
}

TEST_P(ExpandedAttentionOf, NeverLetsALaterTokenTouchAnEarlierOne) {
  constexpr int64_t kLength = 530;
  for (const ExpandedShape& shape : shapes()) {
    const Weights weights(shape, 3);
    for (const int64_t poison : {505, 512, 521}) {
      Sequence healthy(shape, kLength, 8);
      Sequence poisoned(shape, kLength, 8);
      for (int64_t i = 0; i < shape.latent_width; ++i)
        poisoned.latent(poison, i) = std::numeric_limits<float>::infinity();
      healthy.lay_out(16, kLength);
      poisoned.lay_out(16, kLength);
      ThreadPool pool({.num_threads = 2});
      ExpandedAttention attention(pool, kernels(GetParam()), shape, 16, kLength);
      const AttentionChunk a = healthy.chunk(490, kLength);
      attention.forward(weights.view(), {&a, 1});
      const AttentionChunk b = poisoned.chunk(490, kLength);
      attention.forward(weights.view(), {&b, 1});
      EXPECT_TRUE(same_rows(poisoned.out, healthy.out, 490, poison)) << poison;
      EXPECT_TRUE(std::isnan(poisoned.out(poison, 0))) << poison;
    }
  }
}

TEST_P(ExpandedAttentionOf, AcceptsNoChunks) {
  const ExpandedShape shape = shape_of(kWidths[0], CacheFormat::kBf16);
  const Weights weights(shape, 4);
  ThreadPool pool({.num_threads = 2});
  ExpandedAttention attention(pool, kernels(GetParam()), shape, 16, 4);
  attention.forward(weights.view(), {});
}

TEST(ExpandedAttentionLimits, RefusesMoreQueriesThanItWasBuiltFor) {
  const ExpandedShape shape = shape_of(kWidths[1], CacheFormat::kF32);
  const Weights weights(shape, 5);
  Sequence sequence(shape, 3, 1);
  sequence.lay_out(16, 3);
  ThreadPool pool({.num_threads = 1});
  ExpandedAttention attention(pool, kernels(Isa::kScalar), shape, 16, 2);
  const AttentionChunk chunk = sequence.chunk(0, 3);
  EXPECT_DEATH(attention.forward(weights.view(), {&chunk, 1}), "queries_max");
}

}  // namespace
}  // namespace wideep::math
