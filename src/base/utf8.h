// Just enough UTF-8: where characters end, and whether bytes are well formed (no overlong forms, no
// surrogates, nothing above U+10FFFF).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace wideep {

// Length in bytes of the well-formed character that `text` starts with; 0 if it starts with none.
int utf8_sequence_length(std::string_view text);

// Whether `text`, all of it, could be the beginning of a longer well-formed character ("" could
// not).
bool is_utf8_prefix(std::string_view text);

bool is_valid_utf8(std::string_view text);

// Replaces each maximal ill-formed part by U+FFFD, as Unicode recommends.
std::string sanitize_utf8(std::string_view text);

// The character at the start of well-formed, non-empty `text`.
char32_t decode_utf8(std::string_view text);
void append_utf8(std::string& out, char32_t character);

}  // namespace wideep
