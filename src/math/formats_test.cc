#include "math/formats.h"

#include "base/matrix.h"
#include "math/kernels.h"
#include "math/test_matrices.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace wideep::math {
namespace {

TEST(Formats, AreFoundByTheirNames) {
  for (const auto format : {WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kFp8,
                            WeightFormat::kInt8, WeightFormat::kInt4})
    EXPECT_EQ(parse_weight_format(name(format)), format);
  for (const auto format : {RowFormat::kF32, RowFormat::kBf16, RowFormat::kInt8, RowFormat::kFp8})
    EXPECT_EQ(parse_row_format(name(format)), format);
  EXPECT_FALSE(parse_weight_format("none"));
  EXPECT_FALSE(parse_row_format("int4"));
}

TEST(Fp8, DecodesTheValuesOfItsStandard) {
  EXPECT_EQ(fp8_to_f32(0x00), 0.0F);
  EXPECT_EQ(fp8_to_f32(0x01), 0x1p-9F);
  EXPECT_EQ(fp8_to_f32(0x07), 7 * 0x1p-9F);
  EXPECT_EQ(fp8_to_f32(0x08), 0x1p-6F);
  EXPECT_EQ(fp8_to_f32(0x38), 1.0F);
  EXPECT_EQ(fp8_to_f32(0xB9), -1.125F);
  EXPECT_EQ(fp8_to_f32(0x7E), 448.0F);
  EXPECT_TRUE(std::isnan(fp8_to_f32(0x7F)));
  EXPECT_TRUE(std::isnan(fp8_to_f32(0xFF)));
}

TEST(Fp8, EveryCodeSurvivesARoundTrip) {
  for (int code = 0; code < 256; ++code)
    EXPECT_EQ(f32_to_fp8(fp8_to_f32(static_cast<uint8_t>(code))), code);
}

TEST(Fp8, RoundsToTheNearestAndTiesToEven) {
  for (int code = 0; code < 0x7E; ++code) {
    const float low = fp8_to_f32(static_cast<uint8_t>(code));
    const float high = fp8_to_f32(static_cast<uint8_t>(code + 1));
    const float middle = (low + high) / 2;
    EXPECT_EQ(f32_to_fp8(middle), code % 2 == 0 ? code : code + 1) << code;
    EXPECT_EQ(f32_to_fp8(std::nextafter(middle, 0.0F)), code);
    EXPECT_EQ(f32_to_fp8(std::nextafter(middle, 1e9F)), code + 1);
    EXPECT_EQ(f32_to_fp8(-low) & 0x7F, code);
  }
}

TEST(Fp8, SaturatesWhatIsTooLarge) {
  EXPECT_EQ(f32_to_fp8(1e6F), 0x7E);
  EXPECT_EQ(f32_to_fp8(-std::numeric_limits<float>::infinity()), 0xFE);
}

TEST(Bf16, RoundsTiesToEvenAndKeepsNaN) {
  EXPECT_EQ(f32_to_bf16(1.0F), 0x3F80);
  EXPECT_EQ(f32_to_bf16(1.0F + 0x1p-8F), 0x3F80);
  EXPECT_EQ(f32_to_bf16(1.0F + 3 * 0x1p-8F), 0x3F82);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::nanf("")))));
  EXPECT_TRUE(std::isinf(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::max()))));
}

TEST(F16, DecodesNormalsDenormalsAndSpecials) {
  EXPECT_EQ(f16_to_f32(0x3C00), 1.0F);
  EXPECT_EQ(f16_to_f32(0x0001), 0x1p-24F);
  EXPECT_EQ(f16_to_f32(0xFBFF), -65504.0F);
  EXPECT_TRUE(std::isinf(f16_to_f32(0x7C00)));
  EXPECT_TRUE(std::isnan(f16_to_f32(0x7E00)));
}

TEST(Rows, AreMultiplesOf64BytesWithScalesBehindTheColumns) {
  EXPECT_EQ(row_bytes(RowFormat::kF32, 65), 512);
  EXPECT_EQ(row_bytes(RowFormat::kBf16, 7168), 14336);
  EXPECT_EQ(row_bytes(RowFormat::kInt8, 7168), 7168 + 64);
  EXPECT_EQ(row_bytes(RowFormat::kFp8, 7168), 7168 + 256);
  EXPECT_EQ(row_scale_offset(RowFormat::kFp8, 65), 128);
}

TEST(Rows, DecodeWithinHalfAStepOfEachFormat) {
  constexpr int64_t kCols = 300;
  const Matrix<float> x = random_matrix(1, kCols, 11);
  for (const auto& [format, relative, absolute] :
       {std::tuple{RowFormat::kF32, 0.0F, 0.0F}, std::tuple{RowFormat::kBf16, 0x1p-8F, 0.0F},
        std::tuple{RowFormat::kInt8, 0.0F, 0.502F / 127},
        std::tuple{RowFormat::kFp8, 0x1p-4F, 0x1p-10F / 448}}) {
    AlignedBuffer row(static_cast<size_t>(row_bytes(format, kCols)));
    std::vector<float> back(kCols);
    reference_encode_row(format, x.row(0), row.data());
    reference_decode_row(format, row.data(), back);
    for (size_t i = 0; i < kCols; ++i) {
      const float value = x.row(0)[i];
      EXPECT_LE(std::abs(back[i] - value), std::abs(value) * relative + absolute) << name(format);
    }
  }
}

TEST(Rows, OfInt8CarryTheSumOfTheirCodes) {
  const std::vector<float> x = {127.0F, -3.0F, 1.0F};
  AlignedBuffer row(static_cast<size_t>(row_bytes(RowFormat::kInt8, 3)));
  reference_encode_row(RowFormat::kInt8, x, row.data());
  float scale = 0;
  int32_t sum = 0;
  std::memcpy(&scale, row.data() + 64, 4);
  std::memcpy(&sum, row.data() + 68, 4);
  EXPECT_EQ(scale, 1.0F);
  EXPECT_EQ(sum, 125);
}

TEST(Rows, ShowANaNInEveryDecodedValue) {
  std::vector<float> x(64, 1.0F);
  x[3] = std::nanf("");
  for (const RowFormat format : {RowFormat::kInt8, RowFormat::kFp8}) {
    AlignedBuffer row(static_cast<size_t>(row_bytes(format, 64)));
    reference_encode_row(format, x, row.data());
    std::vector<float> back(64);
    reference_decode_row(format, row.data(), back);
    EXPECT_TRUE(std::isnan(back[0])) << name(format);
  }
}

// Values of every magnitude, and those that are none.
std::vector<float> awkward_row(int64_t cols, uint64_t seed) {
  Random random(seed);
  std::vector<float> row;
  for (int64_t i = 0; i < cols; ++i) {
    const float scale = std::ldexp(1.0F, static_cast<int>(random.below(60)) - 40);
    row.push_back(random.symmetric() * scale);
  }
  row[random.below(row.size())] = 0.0F;
  row[random.below(row.size())] = -0.0F;
  row[random.below(row.size())] = 0x1p-140F;
  return row;
}

class FastFormats : public testing::TestWithParam<Isa> {};

TEST_P(FastFormats, EncodeAndDecodeToTheBitsOfTheReference) {
  const Kernels& table = kernels(GetParam());
  for (const RowFormat format :
       {RowFormat::kF32, RowFormat::kBf16, RowFormat::kInt8, RowFormat::kFp8}) {
    for (const int64_t cols : {1, 63, 64, 65, 127, 128, 129, 300, 7168}) {
      for (uint64_t seed = 0; seed < 4; ++seed) {
        std::vector<float> row = awkward_row(cols, seed + 100);
        if (seed == 1) std::fill(row.begin(), row.end(), 0.0F);
        if (seed == 2) row[0] = std::nanf("");
        if (seed == 3) row[0] = -std::numeric_limits<float>::infinity();
        const auto bytes = static_cast<size_t>(row_bytes(format, cols));
        AlignedBuffer expected(bytes);
        AlignedBuffer encoded(bytes);
        std::memset(encoded.data(), 0xAA, bytes);
        reference_encode_row(format, row, expected.data());
        table.encode_row(format, row.data(), cols, encoded.data());
        ASSERT_EQ(std::memcmp(expected.data(), encoded.data(), bytes), 0)
            << name(format) << " " << cols << " seed " << seed;
        std::vector<float> back(row.size());
        std::vector<float> decoded(row.size());
        reference_decode_row(format, expected.data(), back);
        table.decode_row(format, encoded.data(), cols, decoded.data());
        for (size_t i = 0; i < row.size(); ++i)
          ASSERT_TRUE(back[i] == decoded[i] || (std::isnan(back[i]) && std::isnan(decoded[i])));
      }
    }
  }
}

TEST_P(FastFormats, RoundBf16ToTheBitsOfTheReferenceAndWriteNoMore) {
  const std::vector<float> row = awkward_row(77, 5);
  std::vector<uint16_t> out(80, 0xAAAA);
  kernels(GetParam()).to_bf16(row.data(), 77, out.data());
  for (size_t i = 0; i < 77; ++i)
    EXPECT_EQ(out[i], f32_to_bf16(row[i]));
  EXPECT_EQ(out[77], 0xAAAA);
}

INSTANTIATE_TEST_SUITE_P(Levels,
                         FastFormats,
                         testing::ValuesIn(supported_isas()),
                         [](const auto& info) { return std::string(name(info.param)); });

}  // namespace
}  // namespace wideep::math
