#include "model/make_checkpoint.h"

#include "base/file.h"
#include "ep/local_all_to_all.h"
#include "model/golden_run.h"
#include "model/load_model.h"
#include "model/matrix_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

namespace wideep::model {
namespace {

using testing::HasSubstr;

class MakeCheckpoint : public testing::Test {
 protected:
  MakeCheckpoint() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fmt::format("{}wideep_{}_{}", testing::TempDir(), test->name(), getpid());
  }

  ~MakeCheckpoint() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
};

TEST_F(MakeCheckpoint, KnowsItsShapesAndNamesThem) {
  for (const std::string_view shape : checkpoint_shapes()) {
    const auto text = checkpoint_config({.shape = std::string(shape)});
    ASSERT_TRUE(text) << text.error().message;
    EXPECT_TRUE(parse_config(*text)) << parse_config(*text).error().message;
  }
  const auto unknown = checkpoint_config({.shape = "huge"});
  ASSERT_FALSE(unknown);
  EXPECT_THAT(unknown.error().message, HasSubstr("ds2"));
}

// The parameters that the benchmarks' arithmetic counts on.
TEST_F(MakeCheckpoint, Ds2HasTheParametersItIsKnownFor) {
  const ModelConfig config = *parse_config(*checkpoint_config({.shape = "ds2"}));
  int64_t parameters = 0;
  ASSERT_TRUE(for_each_tensor(config, false, [&](const TensorSpec& spec) -> Status {
    parameters += spec.rows * std::max<int64_t>(1, spec.cols);
    return {};
  }));
  EXPECT_NEAR(static_cast<double>(parameters) / 1e6, 1628, 0.5);
}

// Loads, runs and gives finite logits of a sensible size, in one shard or many, BF16 or FP8.
TEST_F(MakeCheckpoint, GivesModelsThatRun) {
  ThreadPool pool({.num_threads = 1});
  for (const bool fp8 : {false, true}) {
    ASSERT_TRUE(make_checkpoint({.shape = "tiny",
                                 .folder = folder_,
                                 .fp8 = fp8,
                                 .num_layers = 2,
                                 .shard_bytes_max = 1 << 20}));
    const auto model = load_model(folder_, pool, {.rows_max = 8, .block_tokens = 16});
    ASSERT_TRUE(model) << model.error().message;
    ep::LocalAllToAll all_to_all(pool, math::kernels((*model)->numeric().isa),
                                 {.formats = (*model)->numeric().row_formats(),
                                  .hidden = 256,
                                  .num_experts = 16,
                                  .top_k = 4,
                                  .tokens_max = 8});
    GoldenRunner runner(**model, all_to_all, 16);
    GoldenSequence sequence;
    const std::vector<TokenId> tokens = {TokenId{5}, TokenId{77}, TokenId{2000}};
    const GoldenRunner::Feed feed{&sequence, tokens};
    const auto logits = runner.forward(std::span(&feed, 1));
    ASSERT_TRUE(logits) << logits.error().message;
    double sum = 0;
    for (int64_t c = 0; c < logits->cols; ++c)
      sum += double{(*logits)(2, c)} * (*logits)(2, c);
    const double deviation = std::sqrt(sum / static_cast<double>(logits->cols));
    EXPECT_GT(deviation, 0.3);
    EXPECT_LT(deviation, 3);
    std::filesystem::remove_all(folder_);
  }
}

TEST_F(MakeCheckpoint, TakesTheShapeOfAConfigFile) {
  std::filesystem::create_directories(folder_);
  const std::string file = folder_ + "/shape.json";
  const std::string named = *checkpoint_config({.shape = "tiny-qwen3", .fp8 = true});
  ASSERT_TRUE(write_file(file, named));
  EXPECT_EQ(*checkpoint_config({.shape = file, .fp8 = true}), named);
  EXPECT_EQ(parse_config(*checkpoint_config({.shape = file}))->quantization, Quantization::kNone);
  EXPECT_EQ(parse_config(*checkpoint_config({.shape = file, .num_layers = 2}))->num_layers, 2);
  EXPECT_FALSE(checkpoint_config({.shape = folder_ + "/none.json"}));
  ASSERT_TRUE(write_file(file, "[1]"));
  EXPECT_FALSE(checkpoint_config({.shape = file}));
  std::filesystem::remove_all(folder_);
}

TEST_F(MakeCheckpoint, ValuesDoNotDependOnTheShards) {
  const TensorSpec spec{.name = "model.layers.1.mlp.experts.3.up_proj.weight",
                        .rows = 128,
                        .cols = 256,
                        .layer = 1,
                        .expert = 3};
  std::vector<std::vector<float>> values;
  for (const int64_t shard_bytes : {int64_t{1} << 18, int64_t{1} << 30}) {
    ASSERT_TRUE(make_checkpoint(
        {.shape = "tiny", .folder = folder_, .num_layers = 2, .shard_bytes_max = shard_bytes}));
    values.push_back(*read_floats(*Checkpoint::open(folder_, {})->locate(spec)));
    std::filesystem::remove_all(folder_);
  }
  EXPECT_EQ(values[0], values[1]);
}

}  // namespace
}  // namespace wideep::model
