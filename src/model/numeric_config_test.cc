#include "model/numeric_config.h"

#include <gtest/gtest.h>

namespace wideep::model {
namespace {

TEST(NumericConfig, HashChangesWithEveryField) {
  const NumericConfig base;
  const auto changed = [&](auto change) {
    NumericConfig other;
    change(other);
    EXPECT_NE(other.hash(), base.hash()) << other.describe();
  };
  changed([](NumericConfig& c) { c.precision = math::Precision::kF32; });
  changed([](NumericConfig& c) { c.expert_weights = math::WeightFormat::kInt8; });
  changed([](NumericConfig& c) { c.linear_weights = math::WeightFormat::kBf16; });
  changed([](NumericConfig& c) { c.dispatch_format = math::RowFormat::kFp8; });
  changed([](NumericConfig& c) { c.combine_format = math::RowFormat::kF32; });
  changed([](NumericConfig& c) { c.cache_format = math::CacheFormat::kF32; });
  changed([](NumericConfig& c) { c.attention_form = AttentionForm::kDirect; });
  changed([](NumericConfig& c) { c.attention_form = AttentionForm::kByRole; });
  changed([](NumericConfig& c) { c.isa = math::Isa::kAvx512; });
  changed([](NumericConfig& c) { ++c.kernel_revision; });
  EXPECT_EQ(NumericConfig{}.hash(), base.hash());
}

TEST(NumericConfig, SaysItAllInOneLine) {
  EXPECT_EQ(NumericConfig{}.describe(),
            "precision=mixed experts=bf16 linears=stored dispatch=bf16 combine=bf16 cache=bf16 "
            "attention=absorbed isa=scalar kernels=1");
}

TEST(NumericConfig, RowsForInt8ExpertsAreInt8) {
  const NumericConfig config{.expert_weights = math::WeightFormat::kInt8};
  EXPECT_EQ(config.row_formats().input, math::RowFormat::kInt8);
}

}  // namespace
}  // namespace wideep::model
