#include "model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::model {
namespace {

using testing::HasSubstr;

std::string message(std::string_view header, int64_t data_bytes) {
  const auto tensors = parse_safetensors_header(header, data_bytes);
  return tensors ? "accepted" : tensors.error().message;
}

TEST(SafetensorsHeader, GivesTensorsInTheOrderOfTheirPositions) {
  const auto tensors = parse_safetensors_header(
      R"({"__metadata__":{"format":"pt"},
          "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},
          "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
      16);
  ASSERT_TRUE(tensors) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 2U);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[1].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ((*tensors)[1].dtype, Dtype::kBf16);
}

TEST(SafetensorsHeader, AllowsTensorsWithoutValuesAnywhere) {
  EXPECT_EQ(message(R"({"z":{"dtype":"F32","shape":[0,5],"data_offsets":[4,4]},
                        "a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                    4),
            "accepted");
}

TEST(SafetensorsHeader, RefusesRangesThatAreWrong) {
  EXPECT_THAT(message(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}})", 4),
              HasSubstr("tensor 'a': data_offsets [4, 0] are reversed"));
  EXPECT_THAT(message(R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}})", 4),
              HasSubstr("tensor 'a': data_offsets [0, 5] pass the end"));
  EXPECT_THAT(message(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,3]}})", 4),
              HasSubstr("tensor 'a': shape [4]"));
  EXPECT_THAT(message(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})", 4),
              HasSubstr("tensor 'a': begins at 2"));
  EXPECT_THAT(message(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 4),
              HasSubstr("has 4 bytes, its tensors take 2"));
  EXPECT_THAT(message(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},
                          "b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
                      4),
              HasSubstr("tensor 'b': begins at 2"));
}

TEST(SafetensorsHeader, RefusesShapesThatOverflowOrAreNegative) {
  EXPECT_THAT(message(R"({"a":{"dtype":"F32","shape":[8589934592,8589934592],
                          "data_offsets":[0,0]}})",
                      0),
              HasSubstr("more than 2^63 bytes"));
  EXPECT_THAT(message(R"({"a":{"dtype":"U8","shape":[-2,-2],"data_offsets":[0,4]}})", 4),
              HasSubstr("'shape' holds -2"));
  EXPECT_THAT(message(R"({"a":{"dtype":"U8","shape":[2.5],"data_offsets":[0,4]}})", 4),
              HasSubstr("'shape' holds 2.5"));
  EXPECT_THAT(
      message(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1),
      HasSubstr("at most 8 allowed"));
}

TEST(SafetensorsHeader, RefusesWhatHasNoSense) {
  EXPECT_THAT(message("[]", 0), HasSubstr("no JSON object"));
  EXPECT_THAT(message(R"({"a":3})", 0), HasSubstr("tensor 'a': an object is wanted"));
  EXPECT_THAT(message(R"({"a":{"shape":[],"data_offsets":[0,0]}})", 0), HasSubstr("'dtype'"));
  EXPECT_THAT(message(R"({"a":{"dtype":"Q7","shape":[],"data_offsets":[0,0]}})", 0),
              HasSubstr("unknown dtype 'Q7'"));
  EXPECT_THAT(message(R"({"a":{"dtype":"U8","data_offsets":[0,0]}})", 0), HasSubstr("'shape'"));
  EXPECT_THAT(message(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0]}})", 0),
              HasSubstr("'data_offsets' has 1"));
  EXPECT_THAT(message(R"({"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},
                          "a":{"dtype":"U8","shape":[],"data_offsets":[1,2]}})",
                      2),
              HasSubstr("appears twice"));
  EXPECT_THAT(message(std::string(20000, '['), 0), HasSubstr("nested deeper"));
}

}  // namespace
}  // namespace wideep::model
