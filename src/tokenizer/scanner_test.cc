#include "tokenizer/scanner.h"

#include "base/random.h"
#include "base/utf8.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/small_tokenizer_test.h"
#include "tokenizer/splitter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace wideep::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> split(const Splitter& splitter, std::string_view text) {
  std::vector<std::string> out;
  const Status status = splitter.for_each_part(text, [&](const Splitter::Part& part) {
    out.push_back((part.is_match ? "" : "gap:") + std::string(part.text));
  });
  EXPECT_TRUE(status.has_value());
  return out;
}

std::vector<std::string> cut(std::string_view pre_tokenizer, std::string_view text) {
  const auto parsed_step = PreTokenizer::from_json(parsed(pre_tokenizer));
  if (!parsed_step) return {parsed_step.error().message};
  std::vector<std::string> out;
  const Status status =
      parsed_step->split(text, [&](std::string_view piece) { out.emplace_back(piece); });
  EXPECT_TRUE(status.has_value());
  return out;
}

// A Split with the regular expression `\d+` (not a known pattern), then ByteLevel.
std::string digits_split(std::string_view behavior, bool invert = false) {
  return std::string(R"({"type":"Sequence","pretokenizers":[{"type":"Split",)") +
         R"("pattern":{"Regex":"[0-9]"},"behavior":")" + std::string(behavior) + R"(","invert":)" +
         (invert ? "true" : "false") +
         R"(},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})";
}

// Characters on which the patterns differ; all of them in Unicode 14, which PCRE2 knows.
std::string random_text(Random& random) {
  static const std::vector<std::string> kAtoms = {
      "a",      "Z",      "s",      "T",      "'",      "'s",     "'LL",        "'re",    "\u017F",
      " ",      "  ",     "\n",     "\r",     "\t",     "\u3000", "1",          "22",     "\u0663",
      "\u00BD", ".",      "/",      "!",      "$",      "+",      "\u00E9",     "\u0301", "\u4E2D",
      "\u3042", "\u3007", "\u01C5", "\u02B0", "\u0416", "\u0436", "\U0001F600", "\u200D", "\u0007",
      "\u0430", "\u00AA", "_",      "\u00A0", "\u2028", "\u2E80", "\u9FA5",     "\u9FA6"};
  std::string text;
  for (uint64_t i = random.below(24); i > 0; --i)
    text += kAtoms[random.below(kAtoms.size())];
  return text;
}

TEST(Scanner, EqualsPcre2OnEveryKnownPattern) {
  Random random(7);
  for (const KnownPattern& known : known_patterns()) {
    if (known.pattern.find("&&") != std::string_view::npos) continue;  // PCRE2 has no intersection
    const Splitter fast = Splitter::scanner(known.scanner);
    const Splitter slow = Splitter::regex(known.pattern).value();
    for (int round = 0; round < 4000; ++round) {
      const std::string text = random_text(random);
      ASSERT_EQ(split(fast, text), split(slow, text)) << known.pattern << "\non " << text;
    }
  }
}

TEST(Scanner, EqualsPcre2OnKimisPatternWithTheIntersectionSpelledOut) {
  const KnownPattern* kimi = nullptr;
  for (const KnownPattern& known : known_patterns()) {
    if (known.pattern.find("&&") != std::string_view::npos) kimi = &known;
  }
  ASSERT_NE(kimi, nullptr);
  // [X&&[^\p{Han}]] is (?:(?!\p{Han})[X]).
  std::string spelled_out(kimi->pattern);
  const std::string upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]])";
  const std::string lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]])";
  for (const std::string& set : {upper, lower}) {
    const std::string plain = R"((?:(?!\p{Han}))" + set.substr(0, set.find("&&")) + "])";
    for (size_t at = spelled_out.find(set); at != std::string::npos; at = spelled_out.find(set)) {
      spelled_out.replace(at, set.size(), plain);
    }
  }
  const Splitter fast = Splitter::scanner(kimi->scanner);
  const Splitter slow = Splitter::regex(spelled_out).value();
  Random random(8);
  for (int round = 0; round < 6000; ++round) {
    const std::string text = random_text(random);
    ASSERT_EQ(split(fast, text), split(slow, text)) << text;
  }
}

TEST(Scanner, CutsWordsLikeLlama3) {
  const auto pattern = known_patterns()[3].pattern;
  const Splitter splitter = Splitter::scanner(find_scanner(pattern));
  EXPECT_THAT(split(splitter, "We'll pay 12345 $  now\n\n x"),
              ElementsAre("We", "'ll", " pay", " ", "123", "45", " $", " ", " now", "\n\n", " x"));
}

TEST(Scanner, IsFoundWhetherLineBreaksAreRawOrSpelled) {
  std::string raw(known_patterns()[3].pattern);
  for (const auto& [spelling, character] : {std::pair("\\r", "\r"), std::pair("\\n", "\n")}) {
    for (size_t at = raw.find(spelling); at != std::string::npos; at = raw.find(spelling)) {
      raw.replace(at, 2, character);
    }
  }
  EXPECT_EQ(find_scanner(raw), known_patterns()[3].scanner);
  EXPECT_EQ(find_scanner("[a-z]+"), nullptr);
}

TEST(Splitter, FindsLiterals) {
  EXPECT_THAT(split(Splitter::literal("ab"), "xababy"), ElementsAre("gap:x", "ab", "ab", "gap:y"));
  EXPECT_THAT(split(Splitter::literal(""), "xy"), ElementsAre("gap:xy"));
}

TEST(Splitter, RefusesBadPatternsAndLimitsTheWork) {
  EXPECT_THAT(Splitter::regex("(").error().message, HasSubstr("pattern at byte 1"));
  EXPECT_THAT(Splitter::regex(std::string(20'000, 'a')).error().message, HasSubstr("20000 bytes"));
  const Splitter bomb = Splitter::regex("(a+)+$").value();
  const Status status = bomb.for_each_part(std::string(200, 'a') + "b", [](const auto&) {});
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kExhausted);
}

TEST(PreTokenizer, FollowsEveryBehavior) {
  EXPECT_THAT(cut(digits_split("Isolated"), "ab12c"), ElementsAre("ab", "1", "2", "c"));
  EXPECT_THAT(cut(digits_split("Removed"), "ab12c"), ElementsAre("ab", "c"));
  EXPECT_THAT(cut(digits_split("Contiguous"), "ab12c"), ElementsAre("ab", "12", "c"));
  EXPECT_THAT(cut(digits_split("MergedWithPrevious"), "ab12c"), ElementsAre("ab1", "2", "c"));
  EXPECT_THAT(cut(digits_split("MergedWithNext"), "ab12c"), ElementsAre("ab", "1", "2c"));
  EXPECT_THAT(cut(digits_split("Removed", true), "ab12c"), ElementsAre("1", "2"));
}

TEST(PreTokenizer, CutsDigitsOneByOneOrInRuns) {
  const std::string head = R"({"type":"Sequence","pretokenizers":[{"type":"Digits")";
  const std::string tail = R"(},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})";
  EXPECT_THAT(cut(head + R"(,"individual_digits":true)" + tail, "a12"), ElementsAre("a", "1", "2"));
  EXPECT_THAT(cut(head + tail, "a12"), ElementsAre("a", "12"));
}

TEST(PreTokenizer, RefusesWhatItDoesNotSupport) {
  EXPECT_THAT(cut(R"({"type":"ByteLevel","add_prefix_space":true})", ""),
              ElementsAre(HasSubstr("add_prefix_space")));
  EXPECT_THAT(cut(R"({"type":"Digits"})", ""), ElementsAre(HasSubstr("no ByteLevel")));
  EXPECT_THAT(cut(R"({"type":"Sequence","pretokenizers":[
                     {"type":"ByteLevel","add_prefix_space":false},{"type":"Digits"}]})",
                  ""),
              ElementsAre(HasSubstr("Digits after ByteLevel")));
  EXPECT_THAT(cut(digits_split("Sideways"), ""), ElementsAre(HasSubstr("'Sideways'")));
  std::string many = R"({"type":"Sequence","pretokenizers":[)";
  for (int i = 0; i < 17; ++i)
    many += R"({"type":"Digits"},)";
  EXPECT_THAT(cut(many + R"({"type":"Digits"}]})", ""), ElementsAre(HasSubstr("more than 16")));
}

}  // namespace
}  // namespace wideep::tokenizer
