#include "tokenizer/unicode.h"

#include "tokenizer/unicode_tables.h"
#include "tokenizer/vocabulary.h"

#include <gtest/gtest.h>

namespace wideep::tokenizer {
namespace {

TEST(Unicode, KnowsCategoriesAtTheirEdges) {
  EXPECT_NE(category_of(U'A') & kUpper, 0U);
  EXPECT_NE(category_of(U'z') & kLower, 0U);
  EXPECT_NE(category_of(0x0301) & kMark, 0U);
  EXPECT_NE(category_of(0x00BD) & kNumber, 0U);
  EXPECT_NE(category_of(U'_') & kPunctuation, 0U);
  EXPECT_NE(category_of(U'+') & kSymbol, 0U);
  EXPECT_EQ(category_of(0x10FFFF) & ~kUnprintable, 0U);
  EXPECT_EQ(category_of(0) & kSpace, 0U);
}

TEST(Unicode, HasExactlyTheWhiteSpaceOfTheStandard) {
  int count = 0;
  for (char32_t code = 0; code < 0x110000; ++code)
    count += (category_of(code) & kSpace) != 0;
  EXPECT_EQ(count, 25);
  for (const char32_t code : {0x09, 0x0D, 0x85, 0xA0, 0x1680, 0x2028, 0x202F, 0x3000}) {
    EXPECT_NE(category_of(code) & kSpace, 0U) << static_cast<uint32_t>(code);
  }
}

TEST(Unicode, MarksHanCharactersWhateverTheirCategory) {
  EXPECT_NE(category_of(0x4E2D) & kHan, 0U);
  EXPECT_NE(category_of(0x4E2D) & kLetter, 0U);
  EXPECT_NE(category_of(0x3007) & kHan & kNumber, 0U);
  EXPECT_EQ(category_of(0x3042) & kHan, 0U);
}

TEST(Unicode, DecodesEveryLengthAndStopsAtTheEnd) {
  const std::string_view text = "a\u00E4\u4E2D\U0001F600";
  EXPECT_EQ(character_at(text, 0).code, U'a');
  EXPECT_EQ(character_at(text, 1).code, U'\u00E4');
  EXPECT_EQ(character_at(text, 3).code, U'\u4E2D');
  EXPECT_EQ(character_at(text, 6).code, U'\U0001F600');
  EXPECT_EQ(character_at(text, 6).size, 4U);
  EXPECT_EQ(character_at(text, 10).size, 0U);
  EXPECT_FALSE(character_at(text, 10).is(~CategorySet{0}));
}

TEST(Unicode, NormalizesToFormC) {
  EXPECT_EQ(normalize_nfc("plain \u4E2D"), "plain \u4E2D");
  EXPECT_EQ(normalize_nfc("e\u0301"), "\u00E9");
  EXPECT_EQ(normalize_nfc("\u212B"), "\u00C5");
  EXPECT_EQ(normalize_nfc(std::string_view("e\u0301\0x", 5)), std::string_view("\u00E9\0x", 4));
  EXPECT_EQ(normalize_nfc("\u1100\u1161"), "\uAC00");
}

TEST(Vocabulary, SpellsBytesInTheAlphabet) {
  EXPECT_EQ(byte_of_alphabet(0x120), ' ');
  EXPECT_EQ(byte_of_alphabet(0x10A), '\n');
  EXPECT_EQ(byte_of_alphabet(U'!'), '!');
  EXPECT_EQ(byte_of_alphabet(0x143), '\xAD');
  EXPECT_EQ(byte_of_alphabet(0x144), std::nullopt);
  EXPECT_EQ(byte_of_alphabet(U' '), std::nullopt);
  EXPECT_EQ(bytes_of_alphabet("\u0120a"), " a");
  EXPECT_EQ(bytes_of_alphabet("\uFF5C"), std::nullopt);
}

TEST(Vocabulary, GivesBothDirectionsAndHoles) {
  Vocabulary vocabulary;
  EXPECT_EQ(vocabulary.find("a"), std::nullopt);
  for (int i = 0; i < 5000; ++i) {
    ASSERT_TRUE(vocabulary.add("t" + std::to_string(i), TokenId{2 * i}).has_value());
  }
  EXPECT_EQ(vocabulary.find("t4999"), TokenId{9998});
  EXPECT_EQ(vocabulary.bytes(TokenId{24}), "t12");
  EXPECT_EQ(vocabulary.bytes(TokenId{25}), "");
  EXPECT_FALSE(vocabulary.contains(TokenId{25}));
  EXPECT_EQ(vocabulary.size(), 9999);
  EXPECT_TRUE(vocabulary.add("t12", TokenId{24}).has_value());
  EXPECT_FALSE(vocabulary.add("other", TokenId{24}).has_value());
}

}  // namespace
}  // namespace wideep::tokenizer
