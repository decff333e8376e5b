// No step allocates: what a forward needs was taken at load, or by the first step of its size.
#include "base/count_allocations.h"
#include "ep/local_all_to_all.h"
#include "model/golden_run.h"
#include "model/load_model.h"
#include "model/make_checkpoint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

namespace wideep::model {
namespace {

#ifdef WD_COUNTS_ALLOCATIONS

constexpr int64_t kRowsMax = 300;
constexpr int64_t kBlockTokens = 64;

// A step of `count` new tokens for each sequence, in memory of its own.
class Steps {
 public:
  Steps(DecoderModel& model, int64_t num_sequences, int64_t count) {
    const auto bytes = model.kv_layout(kBlockTokens).groups.front().block_bytes();
    for (int64_t s = 0; s < num_sequences; ++s) {
      std::vector<std::byte*> blocks;
      for (int64_t token = 0; token < 2 * count; token += kBlockTokens)
        blocks.push_back(memory_.emplace_back(static_cast<size_t>(bytes)).data());
      batch_.sequences.push_back({.first_row = s * count,
                                  .count = count,
                                  .position = 0,
                                  .num_prompt = count > 1 ? count - 1 : 0,
                                  .block_data = {blocks}});
      for (int64_t i = 0; i < count; ++i)
        batch_.tokens.push_back(TokenId{static_cast<int32_t>((s * 977 + i * 131) % 2048)});
      batch_.logit_rows.push_back(s * count);
    }
  }

  // At another position than before, so that nothing but the sizes repeats.
  const Batch& at(int64_t position) {
    for (auto& sequence : batch_.sequences)
      sequence.position = position;
    return batch_;
  }

 private:
  std::vector<AlignedBuffer> memory_;
  Batch batch_;
};

TEST(Allocation, NoStepAllocatesOnceAStepOfItsSizeHasRun) {
  const std::string folder = fmt::format("{}wideep_allocation_{}", testing::TempDir(), getpid());
  ASSERT_TRUE(make_checkpoint({.shape = "tiny", .folder = folder, .num_layers = 3}));
  using math::WeightFormat;
  for (const WeightFormat format :
       {WeightFormat::kBf16, WeightFormat::kFp8, WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (const math::Isa isa : math::supported_isas()) {
      if (isa == math::Isa::kScalar) continue;
      ThreadPool pool({.num_threads = 2});
      LoadOptions load{.isa = isa, .rows_max = kRowsMax, .block_tokens = kBlockTokens};
      load.weights.expert_format = format;
      load.weights.linear_format = format;
      load.weights.expanded_prompts = format == WeightFormat::kBf16;
      const auto model = std::move(*load_model(folder, pool, load));
      const ModelConfig& config = model->config();
      ep::LocalAllToAll exchange(pool, math::kernels(isa),
                                 {.formats = model->numeric().row_formats(),
                                  .hidden = config.hidden_size,
                                  .num_experts = config.num_experts(),
                                  .top_k = config.router.top_k,
                                  .tokens_max = kRowsMax});
      Steps prompt(*model, 1, kRowsMax);
      Steps decode(*model, 7, 1);
      for (Steps* steps : {&prompt, &decode}) {
        ASSERT_TRUE(model->forward(steps->at(0), exchange));
        const Batch& batch = steps->at(1);
        const int64_t before = num_allocations;
        ASSERT_TRUE(model->forward(batch, exchange));
        EXPECT_EQ(num_allocations, before) << math::name(format) << " " << math::name(isa)
                                           << (steps == &prompt ? ", a prompt" : ", decode");
      }
    }
  }
  std::filesystem::remove_all(folder);
}

#endif

}  // namespace
}  // namespace wideep::model
