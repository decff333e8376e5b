// Character classes for the pre-tokenizers, as bit masks: one load, one AND for each test.
//
// Why a generated table and not ICU or utf8proc: the scanners need sets of categories (\p{L}\p{M}),
// white space and Han in one look-up per character, at the Unicode version (16) that Hugging Face's
// tokenizers have; Debian 12's ICU and PCRE2 are older. utf8proc serves for NFC and case. Thread:
// any; the table is built once, on first use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace wideep::tokenizer {

// General categories, plus one of our own: kControlSpace holds the control characters that are
// white space (U+0009..000D, U+0085). Han characters have their category + 32.
enum class Category : uint8_t {
  kCn,
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMn,
  kMc,
  kMe,
  kNd,
  kNl,
  kNo,
  kPc,
  kPd,
  kPs,
  kPe,
  kPi,
  kPf,
  kPo,
  kSm,
  kSc,
  kSk,
  kSo,
  kZs,
  kZl,
  kZp,
  kCc,
  kCf,
  kCs,
  kCo,
  kUnused,
  kControlSpace,
};

// A set of categories. Bit c is category c, bit 32 + c the Han characters of category c.
using CategorySet = uint64_t;

template <typename... Categories>
constexpr CategorySet category_set(Categories... categories) {
  return ((uint64_t{0x1'0000'0001} << static_cast<int>(categories)) | ...);
}

inline constexpr CategorySet kHan = 0xFFFF'FFFF'0000'0000;
inline constexpr CategorySet kUpper = category_set(Category::kLu, Category::kLt);
inline constexpr CategorySet kLower = category_set(Category::kLl);
inline constexpr CategorySet kCaseless = category_set(Category::kLm, Category::kLo);
inline constexpr CategorySet kLetter = kUpper | kLower | kCaseless;
inline constexpr CategorySet kMark = category_set(Category::kMn, Category::kMc, Category::kMe);
inline constexpr CategorySet kNumber = category_set(Category::kNd, Category::kNl, Category::kNo);
inline constexpr CategorySet kPunctuation = category_set(Category::kPc,
                                                         Category::kPd,
                                                         Category::kPs,
                                                         Category::kPe,
                                                         Category::kPi,
                                                         Category::kPf,
                                                         Category::kPo);
inline constexpr CategorySet kSymbol =
    category_set(Category::kSm, Category::kSc, Category::kSk, Category::kSo);
// Unicode White_Space.
inline constexpr CategorySet kSpace =
    category_set(Category::kZs, Category::kZl, Category::kZp, Category::kControlSpace);
// What Python's repr escapes: controls, formats, unassigned, separators (a space is the exception).
inline constexpr CategorySet kUnprintable =
    kSpace |
    category_set(Category::kCc, Category::kCf, Category::kCs, Category::kCo, Category::kCn);

// The one-element set of a character's category.
CategorySet category_of(char32_t character);

// A character of well-formed text. At the end of the text: no category, code 0, size 0.
struct Character {
  CategorySet category = 0;
  char32_t code = 0;
  uint32_t size = 0;  // in bytes

  bool is(CategorySet set) const { return (category & set) != 0; }

  bool is_newline() const { return code == '\r' || code == '\n'; }
};

// The character at byte `position` of `text`, which is well-formed UTF-8 (checked by the caller).
Character character_at(std::string_view text, size_t position);

// `text` in normalisation form C (utf8proc). `text` is well-formed UTF-8.
std::string normalize_nfc(std::string_view text);

// Python's str.upper() and lower() for single characters (simple case mapping).
char32_t to_upper(char32_t character);
char32_t to_lower(char32_t character);

}  // namespace wideep::tokenizer
