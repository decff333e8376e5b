#include "math/attention.h"

#include "base/matrix.h"
#include "base/random.h"
#include "math/attention_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace wideep::math {
namespace {

// One sequence in a paged cache of its own; rows past the end hold NaN.
class Sequence {
 public:
  Sequence(const AttentionShape& shape, int64_t length, uint64_t seed)
      : shape_(shape), length_(length), rows_(length, shape.token_values) {
    Random random(seed);
    for (int64_t t = 0; t < length; ++t) {
      for (float& value : rows_.row(t))
        value = random.symmetric() * 1.5F;
    }
  }

  int64_t length() const { return length_; }

  float& value(int64_t position, int64_t index) { return rows_(position, index); }

  // Lays positions [0, visible) out in blocks; everything else is NaN.
  std::span<const std::byte* const> blocks(int64_t block_tokens, int64_t visible) {
    const int64_t value_bytes = cache_value_bytes(shape_.format);
    const int64_t block_bytes = block_tokens * shape_.token_values * value_bytes;
    const int64_t num_blocks = (visible + block_tokens - 1) / block_tokens;
    memory_ = AlignedBuffer(static_cast<size_t>(block_bytes * num_blocks));
    std::memset(memory_.data(), 0xFF, memory_.size());
    blocks_.assign(static_cast<size_t>(num_blocks), nullptr);
    for (int64_t b = 0; b < num_blocks; ++b) {
      // Blocks lie in reverse order: a kernel that runs past one meets a foreign one.
      std::byte* block = memory_.data() + (num_blocks - 1 - b) * block_bytes;
      blocks_[static_cast<size_t>(b)] = block;
      for (int64_t t = 0; t < block_tokens && b * block_tokens + t < visible; ++t)
        store(rows_.row(b * block_tokens + t), block + t * shape_.token_values * value_bytes);
    }
    return blocks_;
  }

 private:
  void store(std::span<const float> row, std::byte* out) const {
    for (size_t i = 0; i < row.size(); ++i) {
      if (shape_.format == CacheFormat::kF32) {
        std::memcpy(out + i * 4, &row[i], 4);
      } else {
        const uint16_t bits = f32_to_bf16(row[i]);
        std::memcpy(out + i * 2, &bits, 2);
      }
    }
  }

  AttentionShape shape_;
  int64_t length_;
  Matrix<float> rows_;
  AlignedBuffer memory_;
  std::vector<const std::byte*> blocks_;
};

AttentionShape mla_shape(CacheFormat format, int64_t heads, int64_t latent, int64_t rope) {
  AttentionShape shape;
  shape.format = format;
  shape.heads_per_kv = heads;
  shape.key_width = latent + rope;
  shape.value_width = latent;
  shape.token_values = latent + rope;
  shape.scale = 1.0F / std::sqrt(static_cast<float>(latent + rope));
  return shape;
}

AttentionShape gqa_shape(CacheFormat format,
                         int64_t kv_heads,
                         int64_t heads_per_kv,
                         int64_t width) {
  AttentionShape shape;
  shape.format = format;
  shape.num_kv_heads = kv_heads;
  shape.heads_per_kv = heads_per_kv;
  shape.key_width = width;
  shape.value_width = width;
  shape.token_values = 2 * kv_heads * width;
  shape.value_offset = kv_heads * width;
  shape.scale = 1.0F / std::sqrt(static_cast<float>(width));
  return shape;
}

std::vector<AttentionShape> small_shapes() {
  std::vector<AttentionShape> shapes;
  for (const CacheFormat format : {CacheFormat::kF32, CacheFormat::kBf16}) {
    shapes.push_back(mla_shape(format, 16, 128, 64));
    shapes.push_back(mla_shape(format, 5, 96, 32));
    shapes.push_back(gqa_shape(format, 2, 4, 32));
    shapes.push_back(gqa_shape(format, 3, 1, 16));
    shapes.push_back(mla_shape(format, 3, 64, 16));
    shapes.push_back(gqa_shape(format, 1, 24, 64));
    shapes.push_back(gqa_shape(format, 2, 3, 20));  // not a multiple of any vector
  }
  return shapes;
}

// One sequence's queries [begin, end) and where their results go.
struct Queries {
  Queries(const AttentionShape& shape, int64_t length, uint64_t seed)
      : q(length, shape.num_heads() * shape.key_width),
        out(length, shape.num_heads() * shape.value_width) {
    Random random(seed);
    for (int64_t t = 0; t < length; ++t) {
      for (float& value : q.row(t))
        value = random.symmetric() * 2;
    }
  }

  AttentionChunk chunk(int64_t begin, int64_t end, std::span<const std::byte* const> blocks) {
    return {.q = q.row(begin).data(),
            .out = out.row(begin).data(),
            .position = begin,
            .count = end - begin,
            .blocks = blocks};
  }

  Matrix<float> q;
  Matrix<float> out;
};

Kernels table(Isa isa) {
  return Kernels{.isa = isa};
}

// Largest difference, as a share of the largest value.
double relative_error(const Matrix<float>& a, const Matrix<float>& b) {
  double difference = 0;
  double size = 0;
  for (int64_t r = 0; r < a.rows(); ++r) {
    for (int64_t c = 0; c < a.cols(); ++c) {
      const double d = std::abs(static_cast<double>(a(r, c)) - static_cast<double>(b(r, c)));
      difference = d <= difference ? difference : d;  // keeps NaN
      size = std::max(size, std::abs(static_cast<double>(b(r, c))));
    }
  }
  return difference / size;
}

::testing::AssertionResult same_bits(const Matrix<float>& a, const Matrix<float>& b) {
  for (int64_t r = 0; r < a.rows(); ++r) {
    for (int64_t c = 0; c < a.cols(); ++c) {
      if (std::bit_cast<uint32_t>(a(r, c)) != std::bit_cast<uint32_t>(b(r, c))) {
        return ::testing::AssertionFailure()
               << "row " << r << " value " << c << ": " << a(r, c) << " is not " << b(r, c);
      }
    }
  }
  return ::testing::AssertionSuccess();
}

class AttentionOf : public ::testing::TestWithParam<Isa> {};

INSTANTIATE_TEST_SUITE_P(Levels, AttentionOf, ::testing::ValuesIn(supported_isas()), [](auto& i) {
  return std::string(name(i.param));
});

TEST_P(AttentionOf, OneTokenGivesItsOwnValue) {
  for (const AttentionShape& shape : small_shapes()) {
    Sequence sequence(shape, 1, 1);
    Queries queries(shape, 1, 2);
    ThreadPool pool({.num_threads = 1});
    Attention attention(pool, table(GetParam()), shape, 16, 1);
    const AttentionChunk chunk = queries.chunk(0, 1, sequence.blocks(16, 1));
    attention.forward({&chunk, 1});
    for (int64_t head = 0; head < shape.num_heads(); ++head) {
      for (int64_t i = 0; i < shape.value_width; ++i) {
        const int64_t index =
            shape.value_offset + head / shape.heads_per_kv * shape.value_width + i;
        const float value = sequence.value(0, index);
        const float expected =
            shape.format == CacheFormat::kF32 ? value : bf16_to_f32(f32_to_bf16(value));
        EXPECT_FLOAT_EQ(queries.out(0, head * shape.value_width + i), expected);
      }
    }
  }
}

TEST_P(AttentionOf, AgreesWithTheReference) {
  for (const AttentionShape& shape : small_shapes()) {
    for (const int64_t length : {1, 2, 15, 16, 17, 511, 512, 513, 1100}) {
      SCOPED_TRACE(length);
      Sequence sequence(shape, length, 3);
      Queries queries(shape, length, 4);
      Queries expected(shape, length, 4);
      const int64_t begin = std::max<int64_t>(0, length - 21);
      const auto blocks = sequence.blocks(32, length);
      ThreadPool pool({.num_threads = 2});
      Attention attention(pool, table(GetParam()), shape, 32, 21);
      const AttentionChunk chunk = queries.chunk(begin, length, blocks);
      attention.forward({&chunk, 1});
      const AttentionChunk reference = expected.chunk(begin, length, blocks);
      reference_attention(shape, 32, {&reference, 1});
      // bf16: queries and probabilities are off by 2^-9 each; scores are of the order of 4.
      const double bound = shape.format == CacheFormat::kF32 ? 2e-5 : 2e-2;
      EXPECT_LT(relative_error(queries.out, expected.out), bound);
    }
  }
}

// A batch of sequences, each attended to in ever different chunks.
class Batch {
 public:
  Batch(const AttentionShape& shape, std::span<const int64_t> lengths, uint64_t seed)
      : shape_(shape) {
    for (const int64_t length : lengths) {
      sequences_.emplace_back(shape, length, ++seed);
      queries_.emplace_back(shape, length, ++seed);
    }
  }

  // One query a call, one thread, nothing in the cache beyond it: what must come out. Only some of
  // the queries, the others are left zero.
  std::vector<Matrix<float>> expected(const Kernels& kernels, Random& random) {
    ThreadPool pool({.num_threads = 1});
    Attention attention(pool, kernels, shape_, 16, 1);
    std::vector<Matrix<float>> outs;
    for (size_t s = 0; s < sequences_.size(); ++s) {
      clear(s);
      const int64_t length = sequences_[s].length();
      for (int64_t t = 0; t < length; t += static_cast<int64_t>(1 + random.below(60))) {
        const AttentionChunk chunk = queries_[s].chunk(t, t + 1, sequences_[s].blocks(16, t + 1));
        attention.forward({&chunk, 1});
      }
      outs.push_back(std::move(queries_[s].out));
    }
    return outs;
  }

  // All queries, by random chunks of at most `count_max` queries in random company.
  void run(Attention& attention, int64_t block_tokens, uint64_t count_max, Random& random) {
    std::vector<int64_t> done(sequences_.size());
    std::vector<std::span<const std::byte* const>> blocks;
    for (size_t s = 0; s < sequences_.size(); ++s) {
      clear(s);
      blocks.push_back(sequences_[s].blocks(block_tokens, sequences_[s].length()));
    }
    for (bool more = true; more;) {
      more = false;
      std::vector<AttentionChunk> chunks;
      for (size_t s = 0; s < sequences_.size(); ++s) {
        const int64_t left = sequences_[s].length() - done[s];
        more = more || left > 0;
        if (left == 0 || random.below(4) == 0) continue;
        const int64_t count = std::min(left, static_cast<int64_t>(1 + random.below(count_max)));
        chunks.push_back(queries_[s].chunk(done[s], done[s] + count, blocks[s]));
        done[s] += count;
      }
      attention.forward(chunks);
    }
  }

  size_t size() const { return sequences_.size(); }

  const Matrix<float>& out(size_t sequence) const { return queries_[sequence].out; }

 private:
  void clear(size_t sequence) {
    queries_[sequence].out =
        Matrix<float>(sequences_[sequence].length(), shape_.num_heads() * shape_.value_width);
  }

  AttentionShape shape_;
  std::vector<Sequence> sequences_;
  std::vector<Queries> queries_;
};

// Compares the rows that are not zero in `expected`.
::testing::AssertionResult same_bits_where_known(const Matrix<float>& a,
                                                 const Matrix<float>& expected) {
  for (int64_t r = 0; r < expected.rows(); ++r) {
    const auto row = expected.row(r);
    if (std::count(row.begin(), row.end(), 0.0F) == std::ssize(row)) continue;
    if (std::memcmp(a.row(r).data(), row.data(), row.size_bytes()) != 0)
      return ::testing::AssertionFailure() << "row " << r << " differs";
  }
  return ::testing::AssertionSuccess();
}

// The promise: however the queries of a batch are cut into chunks and calls, whatever the block
// size and the number of threads, the bits are the same.
TEST_P(AttentionOf, GivesTheSameBitsHoweverTheWorkIsCut) {
  const bool slow = attention_kernels(GetParam(), small_shapes()[0]).tiles_max == 1;  // plain C++
  Random random(5);
  for (const AttentionShape& shape : small_shapes()) {
    const std::array<int64_t, 3> lengths = {
        static_cast<int64_t>(520 + random.below(slow ? 10 : 700)),
        static_cast<int64_t>(1 + random.below(slow ? 20 : 100)),
        static_cast<int64_t>(1 + random.below(50))};
    Batch batch(shape, lengths, random.bits());
    const std::vector<Matrix<float>> expected = batch.expected(table(GetParam()), random);
    for (int round = 0; round < (slow ? 2 : 4); ++round) {
      const auto block_tokens = static_cast<int64_t>(16 * (1 + random.below(32)));
      ThreadPool pool({.num_threads = static_cast<int>(1 + random.below(5))});
      Attention attention(pool, table(GetParam()), shape, block_tokens, 1600);
      batch.run(attention, block_tokens, round % 2 == 0 ? 700 : 40, random);
      for (size_t s = 0; s < batch.size(); ++s) {
        ASSERT_TRUE(same_bits_where_known(batch.out(s), expected[s]))
            << "sequence " << s << " round " << round << " blocks of " << block_tokens
            << " threads " << pool.num_threads();
      }
    }
  }
}

TEST_P(AttentionOf, NeverLetsALaterTokenTouchAnEarlierOne) {
  for (const AttentionShape& shape : small_shapes()) {
    constexpr int64_t kLength = 530;
    Sequence healthy(shape, kLength, 6);
    Sequence poisoned(shape, kLength, 6);
    constexpr int64_t kPoison = 521;
    for (int64_t i = 0; i < shape.token_values; ++i)
      poisoned.value(kPoison, i) = std::numeric_limits<float>::quiet_NaN();
    Queries expected(shape, kLength, 7);
    Queries queries(shape, kLength, 7);
    ThreadPool pool({.num_threads = 2});
    Attention attention(pool, table(GetParam()), shape, 16, kLength);
    const AttentionChunk a = expected.chunk(500, kLength, healthy.blocks(16, kLength));
    attention.forward({&a, 1});
    const AttentionChunk b = queries.chunk(500, kLength, poisoned.blocks(16, kLength));
    attention.forward({&b, 1});
    for (int64_t t = 500; t < kLength; ++t) {
      for (int64_t i = 0; i < queries.out.cols(); ++i) {
        if (t < kPoison) {
          ASSERT_EQ(queries.out(t, i), expected.out(t, i)) << t;
        } else {
          ASSERT_TRUE(std::isnan(queries.out(t, i))) << t;
        }
      }
    }
  }
}

TEST_P(AttentionOf, AcceptsNoChunks) {
  ThreadPool pool({.num_threads = 2});
  Attention attention(pool, table(GetParam()), mla_shape(CacheFormat::kBf16, 4, 32, 16), 16, 4);
  attention.forward({});
}

// Rows that see nothing of a partition: as if it were not there.
TEST_P(AttentionOf, MergingNothingChangesNoBit) {
  const AttentionKernels& kernels = attention_kernels(GetParam(), small_shapes()[0]);
  constexpr int64_t kWidth = 24;
  Matrix<float> from(2, kWidth);
  Matrix<float> into(2, kWidth);
  std::array<float, kRowTile> from_max{};
  std::array<float, kRowTile> from_sum{};
  std::array<float, kRowTile> into_max{};
  std::array<float, kRowTile> into_sum{};
  from_max.fill(3.25F);
  from_sum.fill(1.7F);
  RowTile source{.num_rows = 2, .max = from_max.data(), .sum = from_sum.data()};
  RowTile target{.num_rows = 2, .max = into_max.data(), .sum = into_sum.data()};
  Random random(8);
  for (int64_t r = 0; r < 2; ++r) {
    for (float& value : from.row(r))
      value = random.symmetric();
    source.out[static_cast<size_t>(r)] = from.row(r).data();
    target.out[static_cast<size_t>(r)] = into.row(r).data();
  }
  kernels.merge(source, kWidth, {.first = true}, target);
  EXPECT_TRUE(same_bits(into, from));
  EXPECT_EQ(into_max[0], from_max[0]);
  EXPECT_EQ(into_sum[1], from_sum[1]);
  Matrix<float> nothing(2, kWidth);
  for (int64_t r = 0; r < 2; ++r)
    source.out[static_cast<size_t>(r)] = nothing.row(r).data();
  from_max.fill(-std::numeric_limits<float>::infinity());
  from_sum.fill(0);
  kernels.merge(source, kWidth, {.first = false}, target);
  EXPECT_TRUE(same_bits(into, from));
  EXPECT_EQ(into_max[0], 3.25F);
  EXPECT_EQ(into_sum[1], 1.7F);
}

TEST(AttentionLimits, RefusesMoreQueriesThanItWasBuiltFor) {
  const AttentionShape shape = mla_shape(CacheFormat::kF32, 2, 16, 16);
  Sequence sequence(shape, 3, 1);
  Queries queries(shape, 3, 2);
  ThreadPool pool({.num_threads = 1});
  Attention attention(pool, table(Isa::kScalar), shape, 16, 2);
  const AttentionChunk chunk = queries.chunk(0, 3, sequence.blocks(16, 3));
  EXPECT_DEATH(attention.forward({&chunk, 1}), "queries_max");
}

}  // namespace
}  // namespace wideep::math
