// Hand-written scanners for the word patterns that tokenizer.json files carry: linear time, no
// backtracking stack, about ten times as fast as a regular expression engine.
//
// A scanner answers "where does the match that begins exactly here end?". Each is the twin of one
// pattern and is chosen by that pattern's text; patterns that are not in the list go to PCRE2
// (splitter.h). The tests compare both on random text.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace wideep::tokenizer {

// End of the match of `text` that begins at `position`; `position` itself if none begins there.
// `text` is well-formed UTF-8, `position` a character boundary before its end.
using Scanner = size_t (*)(std::string_view text, size_t position);

struct KnownPattern {
  std::string_view pattern;  // with \r and \n spelled as two characters
  Scanner scanner;
};

std::span<const KnownPattern> known_patterns();

// The scanner for a pattern of tokenizer.json, or nullptr. Raw CR and LF equal \r and \n.
Scanner find_scanner(std::string_view pattern);

// One match per numeric character (\p{N}), and one per run of them.
size_t scan_digit(std::string_view text, size_t position);
size_t scan_digits(std::string_view text, size_t position);

// GPT-2's pattern, which ByteLevel applies when its use_regex is on.
size_t scan_gpt2(std::string_view text, size_t position);

}  // namespace wideep::tokenizer
