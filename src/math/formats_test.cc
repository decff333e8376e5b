#include "math/formats.h"

#include "base/matrix.h"
#include "math/test_matrices.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace wideep::math {
namespace {

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

}  // namespace
}  // namespace wideep::math
