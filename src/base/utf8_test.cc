#include "base/utf8.h"

#include <gtest/gtest.h>

namespace wideep {
namespace {

TEST(Utf8, RefusesOverlongFormsSurrogatesAndTooLargeCharacters) {
  EXPECT_TRUE(is_valid_utf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"));
  for (const char* bad : {"\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\x80", "\xE2\x82"}) {
    EXPECT_FALSE(is_valid_utf8(bad)) << bad;
  }
}

TEST(Utf8, FindsWhatIsWrongAtEveryPlaceOfALongText) {
  for (size_t length = 0; length < 40; ++length) {
    const std::string text(length, 'a');
    EXPECT_TRUE(is_valid_utf8(text));
    for (size_t i = 0; i < length; ++i) {
      std::string wrong = text;
      wrong[i] = '\xFF';
      EXPECT_FALSE(is_valid_utf8(wrong)) << length << " " << i;
      EXPECT_TRUE(is_valid_utf8(text.substr(0, i) + "\xC3\xA9" + text.substr(i)));
    }
  }
}

TEST(Utf8, KnowsWhenMoreBytesCouldFinishACharacter) {
  EXPECT_TRUE(is_utf8_prefix("\xE2\x82"));
  EXPECT_FALSE(is_utf8_prefix("\xE2\x82\xAC"));
  EXPECT_FALSE(is_utf8_prefix("\xE2\x28"));
  EXPECT_FALSE(is_utf8_prefix("\xED\xA0"));
}

TEST(Utf8, ReplacesEachMaximalIllFormedPartOnce) {
  EXPECT_EQ(sanitize_utf8("a\xE2\x82z"), "a\xEF\xBF\xBDz");
  EXPECT_EQ(sanitize_utf8("\xFF\xFE"), "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(Utf8, DecodesWhatItEncodes) {
  for (const char32_t character : {U'a', U'\u00e9', U'\u20ac', U'\U0001f600'}) {
    std::string text;
    append_utf8(text, character);
    EXPECT_EQ(decode_utf8(text), character);
  }
}

}  // namespace
}  // namespace wideep
