#include "base/utf8.h"

#include "base/check.h"

#include <cstdint>
#include <cstring>

namespace wideep {
namespace {

unsigned char byte_at(std::string_view text, size_t i) {
  return static_cast<unsigned char>(text[i]);
}

// Length that a lead byte announces, 0 if it is none.
int announced_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

// Whether `second` may follow `lead`: excludes overlong forms, surrogates and what lies above
// U+10FFFF.
bool second_byte_fits(unsigned char lead, unsigned char second) {
  switch (lead) {
    case 0xE0:
      return second >= 0xA0 && second <= 0xBF;
    case 0xED:
      return second >= 0x80 && second <= 0x9F;
    case 0xF0:
      return second >= 0x90 && second <= 0xBF;
    case 0xF4:
      return second >= 0x80 && second <= 0x8F;
    default:
      return second >= 0x80 && second <= 0xBF;
  }
}

// How many leading bytes of `text` belong to one character that is well formed as far as it goes.
int well_formed_bytes(std::string_view text, int announced) {
  int length = 1;
  while (length < announced && static_cast<size_t>(length) < text.size()) {
    const unsigned char next = byte_at(text, static_cast<size_t>(length));
    const bool fits =
        length == 1 ? second_byte_fits(byte_at(text, 0), next) : (next & 0xC0) == 0x80;
    if (!fits) break;
    ++length;
  }
  return length;
}

}  // namespace

int utf8_sequence_length(std::string_view text) {
  if (text.empty()) return 0;
  const int announced = announced_length(byte_at(text, 0));
  if (announced == 0) return 0;
  return well_formed_bytes(text, announced) == announced ? announced : 0;
}

bool is_utf8_prefix(std::string_view text) {
  if (text.empty()) return false;
  const int announced = announced_length(byte_at(text, 0));
  const auto size = static_cast<int>(text.size());
  return announced > size && well_formed_bytes(text, announced) == size;
}

bool is_valid_utf8(std::string_view text) {
  constexpr uint64_t kHighBits = 0x8080808080808080ULL;
  for (size_t i = 0; i < text.size();) {
    uint64_t word = kHighBits;
    if (i + sizeof word <= text.size()) std::memcpy(&word, text.data() + i, sizeof word);
    if ((word & kHighBits) == 0) {  // eight times ASCII
      i += sizeof word;
      continue;
    }
    if (byte_at(text, i) < 0x80) {
      ++i;
      continue;
    }
    const int length = utf8_sequence_length(text.substr(i));
    if (length == 0) return false;
    i += static_cast<size_t>(length);
  }
  return true;
}

std::string sanitize_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const std::string_view rest = text.substr(i);
    const int announced = announced_length(byte_at(rest, 0));
    const int length = announced == 0 ? 1 : well_formed_bytes(rest, announced);
    if (length == announced) {
      out += rest.substr(0, static_cast<size_t>(length));
    } else {
      out += "\xEF\xBF\xBD";
    }
    i += static_cast<size_t>(length);
  }
  return out;
}

char32_t decode_utf8(std::string_view text) {
  const int length = utf8_sequence_length(text);
  WD_CHECK(length > 0);
  if (length == 1) return byte_at(text, 0);
  char32_t character = byte_at(text, 0) & (0x7FU >> length);
  for (int i = 1; i < length; ++i) {
    character = character << 6 | (byte_at(text, static_cast<size_t>(i)) & 0x3FU);
  }
  return character;
}

void append_utf8(std::string& out, char32_t character) {
  auto put = [&](char32_t byte) { out += static_cast<char>(byte); };
  if (character < 0x80) {
    put(character);
  } else if (character < 0x800) {
    put(0xC0 | character >> 6);
    put(0x80 | (character & 0x3F));
  } else if (character < 0x10000) {
    put(0xE0 | character >> 12);
    put(0x80 | (character >> 6 & 0x3F));
    put(0x80 | (character & 0x3F));
  } else {
    put(0xF0 | character >> 18);
    put(0x80 | (character >> 12 & 0x3F));
    put(0x80 | (character >> 6 & 0x3F));
    put(0x80 | (character & 0x3F));
  }
}

}  // namespace wideep
