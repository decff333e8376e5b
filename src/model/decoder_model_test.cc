#include "model/decoder_model.h"

#include "ep/local_all_to_all.h"
#include "model/golden_run.h"
#include "model/load_model.h"
#include "model/make_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>

namespace wideep::model {
namespace {

using math::RowFormat;
using math::WeightFormat;

constexpr int64_t kRowsMax = 48;

// One random checkpoint for all tests of this file.
class Decoder : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder() = fmt::format("{}wideep_decoder_{}", testing::TempDir(), getpid());
    ASSERT_TRUE(make_checkpoint({.shape = "tiny", .folder = folder(), .num_layers = 3}));
  }

  static void TearDownTestSuite() { std::filesystem::remove_all(folder()); }

  static std::string& folder() {
    static std::string path;
    return path;
  }
};

// A model with an exchange and sequences of its own.
struct Bed {
  ThreadPool pool;
  LoadOptions load;
  std::unique_ptr<DecoderModel> model;
  std::unique_ptr<ep::LocalAllToAll> all_to_all;
  std::unique_ptr<GoldenRunner> runner;

  explicit Bed(const std::string& folder, LoadOptions options, int num_threads = 1)
      : pool({.num_threads = num_threads}), load(std::move(options)) {
    load.rows_max = kRowsMax;
    auto loaded = load_model(folder, pool, load);
    WD_CHECK(loaded.has_value());
    model = std::move(*loaded);
    all_to_all = new_exchange();
    runner = std::make_unique<GoldenRunner>(*model, *all_to_all, load.block_tokens);
  }

  std::unique_ptr<ep::LocalAllToAll> new_exchange() {
    const ModelConfig& config = model->config();
    return std::make_unique<ep::LocalAllToAll>(
        pool, math::kernels(model->numeric().isa),
        ep::LocalAllToAllOptions{.formats = model->numeric().row_formats(),
                                 .hidden = config.hidden_size,
                                 .num_experts = config.num_experts(),
                                 .top_k = config.router.top_k,
                                 .tokens_max = kRowsMax});
  }

  // Every token's logits, fed `chunk` at a time; those behind the first `num_prompt` are generated.
  std::vector<float> run(const std::vector<TokenId>& tokens,
                         int64_t chunk,
                         int64_t num_prompt = 1000) {
    GoldenSequence sequence{.num_prompt = num_prompt};
    std::vector<float> out;
    for (size_t begin = 0; begin < tokens.size(); begin += static_cast<size_t>(chunk)) {
      const size_t count = std::min(static_cast<size_t>(chunk), tokens.size() - begin);
      const GoldenRunner::Feed feed{&sequence, std::span(tokens).subspan(begin, count)};
      const auto logits = *runner->forward(std::span(&feed, 1));
      for (int64_t r = 0; r < logits.rows; ++r)
        out.insert(out.end(), logits.row(r).begin(), logits.row(r).end());
    }
    return out;
  }
};

std::vector<TokenId> some_tokens(size_t count, int32_t seed = 1) {
  std::vector<TokenId> tokens;
  for (size_t i = 0; i < count; ++i)
    tokens.push_back(TokenId{(seed * 7919 + static_cast<int32_t>(i) * 613) % 2048});
  return tokens;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

LoadOptions with_formats(std::optional<WeightFormat> weights) {
  LoadOptions options{.block_tokens = 16};
  options.weights.expert_format = weights;
  options.weights.linear_format = weights;
  return options;
}

// Promise 1 at the level of the model: chunks, block sizes, threads, company in the batch.
TEST_F(Decoder, GivesTheSameBitsHoweverATokenIsComputed) {
  const std::vector<TokenId> tokens = some_tokens(41);
  for (const std::optional<WeightFormat> weights :
       {std::optional<WeightFormat>(), std::optional(WeightFormat::kFp8),
        std::optional(WeightFormat::kInt8), std::optional(WeightFormat::kInt4)}) {
    SCOPED_TRACE(weights ? math::name(*weights) : "stored");
    Bed bed(folder(), with_formats(weights));
    const std::vector<float> expected = bed.run(tokens, 41);
    EXPECT_TRUE(same_bits(bed.run(tokens, 7), expected));
    EXPECT_TRUE(same_bits(bed.run(tokens, 1), expected));
    LoadOptions other = with_formats(weights);
    other.block_tokens = 64;
    other.expert_rows_max = 5;
    Bed other_bed(folder(), other, 3);
    EXPECT_TRUE(same_bits(other_bed.run(tokens, 16), expected));
  }
}

// Prompts in the expanded form: which form a token takes is a matter of its role alone.
TEST_F(Decoder, GivesTheSameBitsByRoleHoweverATokenIsComputed) {
  const std::vector<TokenId> tokens = some_tokens(41);
  constexpr int64_t kPrompt = 23;
  LoadOptions by_role = with_formats({});
  by_role.weights.expanded_prompts = true;
  Bed bed(folder(), by_role);
  EXPECT_NE(bed.model->numeric().hash(), Bed(folder(), with_formats({})).model->numeric().hash());
  const std::vector<float> expected = bed.run(tokens, 41, kPrompt);
  for (const int64_t chunk : {1, 7, 23})
    EXPECT_TRUE(same_bits(bed.run(tokens, chunk, kPrompt), expected)) << chunk;
  by_role.block_tokens = 64;
  Bed other(folder(), by_role, 3);
  EXPECT_TRUE(same_bits(other.run(tokens, 16, kPrompt), expected));
  // In company whose prompts end elsewhere, behind rows of another sequence.
  const std::vector<TokenId> mate_tokens = some_tokens(7, 5);
  GoldenSequence mate{.num_prompt = 4};
  GoldenSequence sequence{.num_prompt = kPrompt};
  const std::array feeds = {GoldenRunner::Feed{&mate, mate_tokens},
                            GoldenRunner::Feed{&sequence, tokens}};
  const auto logits = *bed.runner->forward(feeds);
  EXPECT_EQ(std::memcmp(logits.row(7).data(), expected.data(), expected.size() * 4), 0);
  // The roles matter, from the boundary on.
  const std::vector<float> longer = bed.run(tokens, 41, kPrompt + 1);
  const auto before = static_cast<size_t>(kPrompt * logits.cols);
  EXPECT_EQ(std::memcmp(longer.data(), expected.data(), before * 4), 0);
  EXPECT_FALSE(same_bits(longer, expected));
}

TEST_F(Decoder, GivesTheSameBitsInAnyCompany) {
  Bed bed(folder(), {.block_tokens = 16});
  const std::vector<TokenId> tokens = some_tokens(20);
  const std::vector<float> expected = bed.run(tokens, 20);
  const std::vector<TokenId> other = some_tokens(11, 5);
  const std::vector<TokenId> third = some_tokens(17, 9);
  GoldenSequence a;
  GoldenSequence b;
  GoldenSequence c;
  const std::array feeds = {GoldenRunner::Feed{&b, other}, GoldenRunner::Feed{&a, tokens},
                            GoldenRunner::Feed{&c, third}};
  const auto logits = *bed.runner->forward(feeds);
  EXPECT_EQ(std::memcmp(logits.row(11).data(), expected.data(), expected.size() * 4), 0);
}

// How far quantisation on load moves the logits (their deviation is about 1): the median, because a
// token whose experts change moves a lot.
TEST_F(Decoder, StaysNearTheStoredWeightsWhenTheyAreQuantised) {
  const std::vector<TokenId> tokens = some_tokens(40);
  Bed exact(folder(), {.weights = {.precision = math::Precision::kF32}, .block_tokens = 16});
  const std::vector<float> expected = exact.run(tokens, 40);

  struct Limit {
    std::optional<WeightFormat> format;
    double median_max;
  };

  for (const Limit& limit : {Limit{std::nullopt, 0.01}, Limit{WeightFormat::kFp8, 0.1},
                             Limit{WeightFormat::kInt8, 0.05}, Limit{WeightFormat::kInt4, 0.4}}) {
    Bed bed(folder(), with_formats(limit.format));
    std::vector<float> difference = bed.run(tokens, 40);
    for (size_t i = 0; i < difference.size(); ++i)
      difference[i] = std::abs(difference[i] - expected[i]);
    const auto middle = difference.begin() + static_cast<int64_t>(difference.size() / 2);
    std::ranges::nth_element(difference, middle);
    EXPECT_LT(*middle, limit.median_max) << (limit.format ? math::name(*limit.format) : "stored");
    EXPECT_GT(*middle, 0) << "the formats make no difference at all";
    RecordProperty(limit.format ? std::string(math::name(*limit.format)) : "stored",
                   fmt::format("{:.4f}", *middle));
  }
}

TEST_F(Decoder, RunsWithoutRowsAndWithoutWantedLogits) {
  Bed bed(folder(), {.block_tokens = 16});
  const auto logits = bed.model->forward({}, *bed.all_to_all);
  ASSERT_TRUE(logits) << logits.error().message;
  EXPECT_EQ(logits->rows, 0);
  EXPECT_EQ(logits->cols, 2048);
}

TEST_F(Decoder, RefusesAStepOfMoreRowsThanItHasRoomFor) {
  Bed bed(folder(), {.block_tokens = 16});
  GoldenSequence sequence;
  const std::vector<TokenId> tokens = some_tokens(kRowsMax + 1);
  const GoldenRunner::Feed feed{&sequence, tokens};
  const auto logits = bed.runner->forward(std::span(&feed, 1));
  ASSERT_FALSE(logits);
  EXPECT_THAT(logits.error().message, testing::HasSubstr("49 rows, at most 48 allowed"));
}

// Fails in one layer, at the call that `at` names.
class FailingExchange : public ep::AllToAll {
 public:
  enum class At { kDispatch, kExperts, kFinish, kCombine };

  FailingExchange(ep::AllToAll& inner, int64_t layer, At at)
      : inner_(inner), layer_(layer), at_(at) {}

  Result<ep::StepProgram> begin_step(const ep::StepWish& wish) override {
    return inner_.begin_step(wish);
  }

  Status start_dispatch(LayerId layer,
                        MatrixView<const float> h,
                        const ep::Routing& routing) override {
    is_due_ = index(layer) == layer_;
    if (is_due_ && at_ == At::kDispatch) return lost();
    return inner_.start_dispatch(layer, h, routing);
  }

  Result<ep::ExpertBatch> next_experts() override {
    if (is_due_ && at_ == At::kExperts) return lost();
    return inner_.next_experts();
  }

  Status finish(const ep::ExpertBatch& batch) override {
    if (is_due_ && at_ == At::kFinish) return lost();
    return inner_.finish(batch);
  }

  Status combine(MatrixView<const float> shared, MatrixView<float> x) override {
    if (is_due_ && at_ == At::kCombine) return lost();
    return inner_.combine(shared, x);
  }

  int64_t tokens_max() const override { return inner_.tokens_max(); }

 private:
  static std::unexpected<Error> lost() { return error(ErrorCode::kPeerLost, "rank 3 is gone"); }

  ep::AllToAll& inner_;
  int64_t layer_;
  At at_;
  bool is_due_ = false;
};

// A step cut off at any layer leaves nothing behind: the next try with a fresh exchange gives the
// bits that an undisturbed run gives.
TEST_F(Decoder, GoesOnWithAFreshExchangeAfterAnAbortAtAnyLayer) {
  Bed bed(folder(), {.block_tokens = 16});
  const std::vector<TokenId> tokens = some_tokens(24);
  const std::vector<float> expected = bed.run(tokens, 12);
  using At = FailingExchange::At;
  for (int64_t layer = 1; layer < 3; ++layer) {
    for (const At at : {At::kDispatch, At::kExperts, At::kFinish, At::kCombine}) {
      auto doomed = bed.new_exchange();
      FailingExchange failing(*doomed, layer, at);
      Batch batch;
      std::vector<AlignedBuffer> blocks;
      std::vector<std::byte*> data;
      const kv::KvLayout layout = bed.model->kv_layout(16);
      for (int i = 0; i < 2; ++i) {
        blocks.emplace_back(static_cast<size_t>(layout.groups.front().block_bytes()));
        data.push_back(blocks.back().data());
      }
      std::vector<float> got;
      const auto step = [&](int64_t position, ep::AllToAll& exchange) {
        batch.clear();
        batch.tokens.assign(tokens.begin() + position, tokens.begin() + position + 12);
        batch.sequences.push_back({.count = 12, .position = position, .block_data = {data}});
        for (int64_t r = 0; r < 12; ++r)
          batch.logit_rows.push_back(r);
        return bed.model->forward(batch, exchange);
      };
      const auto keep = [&](MatrixView<const float> logits) {
        for (int64_t r = 0; r < logits.rows; ++r)
          got.insert(got.end(), logits.row(r).begin(), logits.row(r).end());
      };
      auto fresh = bed.new_exchange();
      keep(*step(0, *fresh));
      const auto cut = step(12, failing);
      ASSERT_FALSE(cut);
      EXPECT_EQ(cut.error().code, ErrorCode::kPeerLost);
      auto next_epoch = bed.new_exchange();
      keep(*step(12, *next_epoch));
      EXPECT_TRUE(same_bits(got, expected)) << "layer " << layer;
    }
  }
}

TEST_F(Decoder, KnowsWhereItsTimeWentAndWhatItRead) {
  Bed bed(folder(), {.block_tokens = 16});
  bed.run(some_tokens(3), 1);
  const StepProfile& profile = bed.model->profile();
  EXPECT_EQ(profile.num_steps(), 3);
  for (const Phase phase :
       {Phase::kEmbed, Phase::kNorm, Phase::kProject, Phase::kAbsorb, Phase::kAttention,
        Phase::kOutput, Phase::kDense, Phase::kRouter, Phase::kDispatch, Phase::kShared,
        Phase::kExperts, Phase::kCombine, Phase::kHead}) {
    EXPECT_GT(profile.spent(phase).count(), 0) << name(phase);
  }
  // Three tokens, each through 4 experts of 2 layers, every expert read once per token.
  const int64_t expert_bytes = 3 * 256 * 128 * 2;
  EXPECT_EQ(bed.model->expert_bytes_read(), 3 * 4 * 2 * expert_bytes);
}

TEST_F(Decoder, TellsItsLayoutAndItsBytes) {
  LoadOptions options{.block_tokens = 32};
  options.weights.draft = true;
  Bed bed(folder(), options);
  const kv::KvLayout layout = bed.model->kv_layout(32);
  ASSERT_EQ(layout.groups.size(), 1U);
  EXPECT_EQ(layout.groups[0].name, "mla");
  EXPECT_EQ(layout.groups[0].num_layers, 3 + 1);
  EXPECT_EQ(layout.groups[0].token_bytes, (128 + 32) * 2);
  EXPECT_EQ(bed.model->fingerprint().size(), 32U);
  // Three layers with experts (1, 2 and the draft's), 16 experts of 3 x 256 x 128 bf16 values.
  EXPECT_NEAR(static_cast<double>(bed.model->expert_bytes()), 3.0 * 16 * 3 * 256 * 128 * 2, 1e5);
  EXPECT_GT(bed.model->other_bytes(), 2 * 2048 * 256 * 2);
}

}  // namespace
}  // namespace wideep::model
