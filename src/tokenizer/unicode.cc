#include "tokenizer/unicode.h"

#include "base/check.h"
#include "tokenizer/unicode_tables.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

namespace wideep::tokenizer {
namespace {

constexpr char32_t kCharacters = 0x110000;
constexpr uint8_t kHanFlag = 32;

// Script=Han in Unicode 16.
constexpr std::pair<char32_t, char32_t> kHanRanges[] = {
    {0x2E80, 0x2E99},   {0x2E9B, 0x2EF3},   {0x2F00, 0x2FD5},   {0x3005, 0x3005},
    {0x3007, 0x3007},   {0x3021, 0x3029},   {0x3038, 0x303B},   {0x3400, 0x4DBF},
    {0x4E00, 0x9FFF},   {0xF900, 0xFA6D},   {0xFA70, 0xFAD9},   {0x16FE2, 0x16FE3},
    {0x16FF0, 0x16FF1}, {0x20000, 0x2A6DF}, {0x2A700, 0x2B738}, {0x2B740, 0x2B81D},
    {0x2B820, 0x2CEA1}, {0x2CEB0, 0x2EBE0}, {0x2EBF0, 0x2EE5D}, {0x2F800, 0x2FA1D},
    {0x30000, 0x3134A}, {0x31350, 0x323AF},
};

// Category (with kHanFlag) of every code point: 1.1 MB, of which a text touches a few pages.
std::vector<uint8_t> make_category_table() {
  std::vector<uint8_t> table(kCharacters);
  for (size_t i = 0; i < kCategoryRangeStarts.size(); ++i) {
    const uint32_t packed = kCategoryRangeStarts[i];
    const uint32_t end = i + 1 < kCategoryRangeStarts.size() ? kCategoryRangeStarts[i + 1] >> 5
                                                             : static_cast<uint32_t>(kCharacters);
    std::fill(table.begin() + (packed >> 5), table.begin() + end, packed & 31);
  }
  const auto control_space = static_cast<uint8_t>(Category::kControlSpace);
  std::fill(table.begin() + 0x09, table.begin() + 0x0E, control_space);
  table[0x85] = control_space;
  for (const auto& [first, last] : kHanRanges) {
    for (char32_t code = first; code <= last; ++code)
      table[code] |= kHanFlag;
  }
  return table;
}

const uint8_t* category_table() {
  static const std::vector<uint8_t> table = make_category_table();
  return table.data();
}

// Characters that NFC keeps and that never join what stands before them: a text of nothing else is
// in form C already. Not complete, only the scripts that most texts are written in.
bool is_plainly_nfc(char32_t code) {
  return code < 0x300 || (code >= 0x400 && code <= 0x482) || (code >= 0x48A && code <= 0x52F) ||
         (code >= 0x2002 && code <= 0x20CF) || (code >= 0x3000 && code <= 0x3029) ||
         (code >= 0x3030 && code <= 0x3098) || (code >= 0x30A0 && code <= 0x9FFF) ||
         (code >= 0xAC00 && code <= 0xD7A3) || (code >= 0xFF00 && code <= 0xFFEF) ||
         (code >= 0x1F000 && code <= 0x1FAFF);
}

bool is_plainly_nfc(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const Character character = character_at(text, i);
    if (!is_plainly_nfc(character.code)) return false;
    i += character.size;
  }
  return true;
}

}  // namespace

CategorySet category_of(char32_t character) {
  WD_DCHECK(character < kCharacters);
  return CategorySet{1} << category_table()[character];
}

Character character_at(std::string_view text, size_t position) {
  if (position >= text.size()) return {};
  const auto byte = [&](size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[position + i]));
  };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {category_of(lead), lead, 1};
  if (lead < 0xE0) {
    const char32_t code = (lead & 0x1F) << 6 | (byte(1) & 0x3F);
    return {category_of(code), code, 2};
  }
  if (lead < 0xF0) {
    const char32_t code = (lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    return {category_of(code), code, 3};
  }
  const char32_t code =
      (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  return {category_of(code), code, 4};
}

std::string normalize_nfc(std::string_view text) {
  if (is_plainly_nfc(text)) return std::string(text);
  utf8proc_uint8_t* raw = nullptr;
  const auto size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &raw,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  // utf8proc allocates with malloc and asks for free().
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owned(raw, &std::free);
  WD_CHECK(size >= 0);  // the text is well formed; only memory could be missing
  return {reinterpret_cast<const char*>(raw), static_cast<size_t>(size)};
}

char32_t to_upper(char32_t character) {
  return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(character)));
}

char32_t to_lower(char32_t character) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(character)));
}

}  // namespace wideep::tokenizer
