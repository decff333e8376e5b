// The generated table behind unicode.h (tools/unicode_tables.py).
#pragma once

#include <array>
#include <cstdint>

namespace wideep::tokenizer {

// Ascending: (first code point of a range) << 5 | (its general category). A range ends where the
// next one starts, the last one at U+10FFFF.
extern const std::array<uint32_t, 4099> kCategoryRangeStarts;

}  // namespace wideep::tokenizer
