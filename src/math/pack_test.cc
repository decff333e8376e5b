#include "math/gemm.h"
#include "math/test_matrices.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace wideep::math {
namespace {

TEST(Pack, KeepsF32AndBf16Exactly) {
  const TestMatrix w(70, 33, 1);
  const Packed f32(w.source(), WeightFormat::kF32);
  const Packed bf16(w.source(), WeightFormat::kBf16);
  for (int64_t row = 0; row < 70; ++row) {
    for (int64_t col = 0; col < 33; ++col) {
      EXPECT_EQ(unpack_value(f32.matrix(), row, col), w(row, col));
      EXPECT_EQ(unpack_value(bf16.matrix(), row, col), bf16_to_f32(f32_to_bf16(w(row, col))));
    }
  }
}

TEST(Pack, KeepsFp8CodesAndBlockScalesAsTheyAre) {
  const TestFp8 w(200, 300, 2);
  const Packed packed(w.source(), WeightFormat::kFp8);
  for (int64_t row = 0; row < 200; ++row) {
    for (int64_t col = 0; col < 300; ++col)
      ASSERT_EQ(unpack_value(packed.matrix(), row, col), w.source().at(row, col));
  }
}

TEST(Pack, PutsGateAndUpOfOneIndexIntoOnePanelWithTheirOwnScales) {
  const TestFp8 gate(160, 140, 3);
  const TestFp8 up(160, 140, 4);
  const PackedGateUp packed(gate.source(), up.source(), WeightFormat::kFp8);
  for (int64_t i = 0; i < 160; ++i) {
    const int64_t row = i / 32 * 64 + i % 32;
    for (int64_t col = 0; col < 140; ++col) {
      ASSERT_EQ(unpack_value(packed.matrix(), row, col), gate.source().at(i, col));
      ASSERT_EQ(unpack_value(packed.matrix(), row + 32, col), up.source().at(i, col));
    }
  }
}

TEST(Pack, KeepsCompressedTensorsNibblesAndScales) {
  // One row of 32: nibble i of word j is input 8j + i, value nibble - 8.
  std::vector<uint32_t> words = {0x76543210, 0xFEDCBA98, 0x88888888, 0x0F0F0F0F};
  const std::vector<uint16_t> scales = {f32_to_bf16(0.5F)};
  const SourceMatrix w{.dtype = SourceMatrix::Dtype::kInt4,
                       .n = 1,
                       .k = 32,
                       .data = reinterpret_cast<const std::byte*>(words.data()),
                       .group_scales = scales.data()};
  const Packed packed(w, WeightFormat::kInt4);
  EXPECT_EQ(unpack_value(packed.matrix(), 0, 0), -4.0F);
  EXPECT_EQ(unpack_value(packed.matrix(), 0, 7), -0.5F);
  EXPECT_EQ(unpack_value(packed.matrix(), 0, 15), 3.5F);
  EXPECT_EQ(unpack_value(packed.matrix(), 0, 20), 0.0F);
  EXPECT_EQ(unpack_value(packed.matrix(), 0, 24), 3.5F);
  EXPECT_EQ(unpack_value(packed.matrix(), 0, 25), -4.0F);
}

TEST(Pack, RoundsToTheNearestCodeWhenItQuantises) {
  const TestMatrix w(65, 96, 5);
  for (const auto& [format, steps] :
       {std::pair{WeightFormat::kInt8, 127.0F}, std::pair{WeightFormat::kInt4, 6.9F},
        std::pair{WeightFormat::kFp8, 14.0F}}) {
    const Packed packed(w.source(), format);
    for (int64_t row = 0; row < 65; ++row) {
      // amax <= 1: half a step of the widest possible code spacing.
      for (int64_t col = 0; col < 96; ++col)
        ASSERT_NEAR(unpack_value(packed.matrix(), row, col), w(row, col), 0.51F / steps);
    }
  }
}

TEST(Pack, LaysOutTheExampleOfTheDocument) {
  // docs/formats/weights.md
  const std::vector<float> values = {1.0F, -0.5F, 0.25F, 0.0F};
  const Packed packed({.dtype = SourceMatrix::Dtype::kF32,
                       .n = 1,
                       .k = 4,
                       .data = reinterpret_cast<const std::byte*>(values.data())},
                      WeightFormat::kInt8);
  const auto bytes = packed.matrix().bytes;
  ASSERT_EQ(bytes.size(), 4352U);
  const std::vector<int> first = {0xFF, 0x40, 0xA0, 0x80, 0x80};
  for (size_t i = 0; i < first.size(); ++i)
    EXPECT_EQ(static_cast<int>(bytes[i]), first[i]) << i;
  const std::vector<int> scale = {0x04, 0x02, 0x01, 0x3C, 0x00};
  for (size_t i = 0; i < scale.size(); ++i)
    EXPECT_EQ(static_cast<int>(bytes[4096 + i]), scale[i]) << i;
}

TEST(Pack, TakesAnInt8CheckpointAsItIs) {
  const std::vector<int8_t> codes = {-128, -1, 0, 127};
  const std::vector<float> scales = {0.25F, 2.0F};
  const SourceMatrix w{.dtype = SourceMatrix::Dtype::kInt8,
                       .n = 2,
                       .k = 2,
                       .data = reinterpret_cast<const std::byte*>(codes.data()),
                       .channel_scales = scales.data()};
  const Packed packed(w, WeightFormat::kInt8);
  EXPECT_EQ(unpack_value(packed.matrix(), 0, 0), -32.0F);
  EXPECT_EQ(unpack_value(packed.matrix(), 1, 1), 254.0F);
}

}  // namespace
}  // namespace wideep::math
