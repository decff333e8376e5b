#include "base/json.h"

#include <gtest/gtest.h>

namespace wideep {
namespace {

TEST(Json, ReadsWhatItWrites) {
  const std::string text = R"({"b":1,"a":[true,null,-2.5,"x\n\u20ac"],"c":{}})";
  const auto parsed = parse_json(text);
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->dump(), "{\"b\":1,\"a\":[true,null,-2.5,\"x\\n\xE2\x82\xAC\"],\"c\":{}}");
  EXPECT_EQ(parsed->find("b")->as_int(), 1);
}

TEST(Json, NamesThePathOfAnError) {
  const auto parsed = parse_json(R"({"a":[1,{"b":tru}]})");
  ASSERT_FALSE(parsed);
  EXPECT_NE(parsed.error().message.find("$.a[1].b"), std::string::npos) << parsed.error().message;
}

TEST(Json, RefusesDeepNestingWithoutRecursion) {
  const std::string deep = "{\"a\":" + std::string(200000, '[');
  const auto parsed = parse_json(deep);
  ASSERT_FALSE(parsed);
  EXPECT_NE(parsed.error().message.find("$.a[0]"), std::string::npos) << parsed.error().message;
  EXPECT_LT(parsed.error().message.size(), 400U);
}

TEST(Json, RefusesDuplicatesTrailingTextHugeNumbersAndBadUtf8) {
  EXPECT_FALSE(parse_json(R"({"a":1,"a":2})"));
  EXPECT_FALSE(parse_json("1 2"));
  EXPECT_FALSE(parse_json("1e999"));
  EXPECT_FALSE(parse_json("\"\xC0\x80\""));
  EXPECT_FALSE(parse_json(""));
}

TEST(Json, RefusesHalvesOfSurrogatePairs) {
  EXPECT_FALSE(parse_json(R"(["\ud83d"])"));
  EXPECT_FALSE(parse_json(R"(["\udeee text"])"));
  EXPECT_FALSE(parse_json(R"({"\udc00":1})"));
  EXPECT_EQ(*parse_json(R"("\ud83d\ude00")")->as_string(), "\xF0\x9F\x98\x80");
  EXPECT_EQ(*parse_json(R"("\uD7FF")")->as_string(),
            "\xED\x9F\xBF");  // the last before them
}

TEST(Json, KeepsIntegersExactAndOthersShort) {
  EXPECT_EQ(parse_json("9223372036854775807")->as_int(), INT64_MAX);
  EXPECT_FALSE(parse_json("9223372036854775808")->as_int());
  EXPECT_EQ(Json(0.1).dump(), "0.1");
  EXPECT_EQ(Json(1.0).dump(), "1.0");
  EXPECT_EQ(parse_json("0e38")->as_double(),
            0.0);  // the parser library's conversion shifts too far here
  EXPECT_EQ(parse_json("-2.5e-3")->as_double(), -0.0025);
  EXPECT_EQ(parse_json("1e-400")->as_double(), 0.0);
  EXPECT_FALSE(parse_json("-1e400"));
  EXPECT_FALSE(parse_json("01"));
  EXPECT_FALSE(parse_json("1."));
}

}  // namespace

// The scanner looks at 16 bytes at once: an escape, an end or a bad byte may stand at any of them.
TEST(Json, StringsOfEveryLengthComeThroughWithAnEscapeAtEveryPlace) {
  for (size_t length = 0; length < 50; ++length) {
    const std::string plain(length, 'x');
    EXPECT_EQ(*parse_json("\"" + plain + "\"")->as_string(), plain);
    for (size_t at = 0; at < length; ++at) {
      std::string expected = plain;
      expected[at] = '\n';
      std::string text = plain;
      text.replace(at, 1, "\\n");
      EXPECT_EQ(*parse_json("  [\"" + text + "\"]")->as_array()->front().as_string(), expected);
      EXPECT_FALSE(parse_json("\"" + expected + "\"")) << "a control character at " << at;
      EXPECT_FALSE(parse_json("\"" + plain.substr(0, at))) << "no end";
    }
  }
}

TEST(Json, ANulEndsNothing) {
  using namespace std::string_view_literals;
  for (const std::string_view text : {"{}\0"sv, "{}\0{}"sv, "\"a\0b\""sv, "\0{}"sv, "\0"sv})
    EXPECT_FALSE(parse_json(text)) << text.size();
  EXPECT_EQ(parse_json(R"("\u0000")")->as_string()->size(), 1U);
  EXPECT_TRUE(parse_json("\xEF\xBB\xBF{}"));
}

}  // namespace wideep
