#include "tokenizer/scanner.h"

#include "tokenizer/unicode.h"

#include <array>
#include <optional>
#include <string>

namespace wideep::tokenizer {
namespace {

// The building blocks. Each returns the end of its match, `at` if it matches nothing.

size_t run_of(std::string_view text, size_t at, CategorySet set) {
  for (Character c = character_at(text, at); c.is(set); c = character_at(text, at))
    at += c.size;
  return at;
}

size_t run_not_of(std::string_view text, size_t at, CategorySet set) {
  for (Character c = character_at(text, at); c.size > 0 && !c.is(set); c = character_at(text, at)) {
    at += c.size;
  }
  return at;
}

// \p{N}{1,max}
size_t numbers(std::string_view text, size_t at, int max) {
  for (int i = 0; i < max; ++i) {
    const Character c = character_at(text, at);
    if (!c.is(kNumber)) break;
    at += c.size;
  }
  return at;
}

bool is_newline(char c) {
  return c == '\r' || c == '\n';
}

size_t newlines(std::string_view text, size_t at, char also = '\n') {
  while (at < text.size() && (is_newline(text[at]) || text[at] == also))
    ++at;
  return at;
}

// \s*[\r\n]+|\s+(?!\S)|\s+  : through the last line break of the white space; else all of it at the
// end of the text; else all but its last character, which then leads the next word; else that one.
size_t white_space(std::string_view text, size_t begin) {
  size_t end = begin;
  size_t last_character = begin;
  size_t after_newline = begin;
  for (Character c = character_at(text, end); c.is(kSpace); c = character_at(text, end)) {
    last_character = end;
    end += c.size;
    if (c.is_newline()) after_newline = end;
  }
  if (after_newline > begin) return after_newline;
  if (end == text.size() || last_character == begin) return end;
  return last_character;
}

// \s+(?!\S)|\s+
size_t white_space_without_lines(std::string_view text, size_t begin) {
  const size_t end = run_of(text, begin, kSpace);
  if (end == text.size() || end == begin) return end;
  size_t last_character = end - 1;
  while ((text[last_character] & 0xC0) == 0x80)
    --last_character;
  return last_character == begin ? end : last_character;
}

// ` ?X+` for a run X: the space only counts when the run follows.
template <typename Run>
size_t after_optional_space(std::string_view text, size_t at, Run run) {
  const size_t begin = text[at] == ' ' ? at + 1 : at;
  const size_t end = run(begin);
  return end > begin ? end : at;
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d). U+017F folds to s.
size_t contraction(std::string_view text, size_t at) {
  if (at + 1 >= text.size() || text[at] != '\'') return at;
  const auto lower = [&](size_t i) {
    return i < text.size() ? static_cast<char>(text[i] | 0x20) : '\0';
  };
  const char first = lower(at + 1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return at + 2;
  const char second = lower(at + 2);
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
      (first == 'l' && second == 'l')) {
    return at + 3;
  }
  if (text.substr(at + 1, 2) == "\xC5\xBF") return at + 3;
  return at;
}

// 's|'t|'re|'ve|'m|'ll|'d
size_t lower_case_contraction(std::string_view text, size_t at) {
  for (const std::string_view form : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (text.substr(at).starts_with(form)) return at + form.size();
  }
  return at;
}

// Llama 3, GLM, Qwen: contractions, words with one leading non-word character, numbers, the rest.
struct WordRules {
  CategorySet word;  // \p{L}, for Qwen 3.5 also \p{M}
  int digits_max;
};

template <WordRules Rules>
size_t scan_words(std::string_view text, size_t at) {
  if (const size_t end = contraction(text, at); end > at) return end;
  const Character first = character_at(text, at);
  // [^\r\n\p{L}\p{N}]?W+
  const bool leads_word = !first.is(kLetter | kNumber) && !first.is_newline();
  const size_t word = leads_word ? at + first.size : at;
  if (const size_t end = run_of(text, word, Rules.word); end > word) return end;
  if (first.is(Rules.word)) return at + first.size;  // a mark alone
  if (first.is(kNumber)) return numbers(text, at, Rules.digits_max);
  const size_t end = after_optional_space(text, at, [&](size_t begin) {
    return run_not_of(text, begin, kSpace | kNumber | Rules.word);
  });
  if (end > at) return newlines(text, end);
  return white_space(text, at);
}

bool is_ascii_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_ascii_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}

// The third pattern of DeepSeek-V3. Numbers, controls and what else it does not name stay gaps.
size_t scan_deepseek_words(std::string_view text, size_t at) {
  if (is_ascii_punctuation(text[at])) {
    size_t end = at + 1;
    while (end < text.size() && is_ascii_letter(text[end]))
      ++end;
    if (end > at + 1) return end;
  }
  // [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
  const Character first = character_at(text, at);
  const bool leads_word = !first.is(kLetter | kPunctuation | kSymbol) && !first.is_newline();
  const size_t word = leads_word ? at + first.size : at;
  if (const size_t end = run_of(text, word, kLetter | kMark); end > word) return end;
  if (first.is(kMark)) return at + first.size;
  const size_t end = after_optional_space(
      text, at, [&](size_t begin) { return run_of(text, begin, kPunctuation | kSymbol); });
  if (end > at) return newlines(text, end);
  return white_space(text, at);
}

// [一-龥぀-ゟ゠-ヿ]+
size_t scan_cjk(std::string_view text, size_t at) {
  for (;;) {
    const char32_t code = character_at(text, at).code;
    const bool inside = (code >= 0x4E00 && code <= 0x9FA5) || (code >= 0x3040 && code <= 0x30FF);
    if (!inside) return at;
    at += 3;
  }
}

size_t scan_three_digits(std::string_view text, size_t at) {
  return numbers(text, at, 3);
}

// Where the o200k word forms U*L+ and U+L* end, U and L being sets that share the caseless
// characters and marks. U*L+ takes all of U it can and gives characters back until an L can follow;
// so it splits before the last character of the U run that is also in L.
struct CasedWords {
  CategorySet excluded;  // Han for Kimi, nothing for o200k
  CategorySet upper = (kUpper | kCaseless | kMark) & ~excluded;
  CategorySet lower = (kLower | kCaseless | kMark) & ~excluded;

  size_t upper_then_lower(std::string_view text, size_t at) const {
    size_t after_last_shared = at;
    size_t end = at;
    Character c = character_at(text, end);
    for (; c.is(upper); c = character_at(text, end)) {
      end += c.size;
      if (c.is(lower)) after_last_shared = end;
    }
    return c.is(lower) ? run_of(text, end, lower) : after_last_shared;
  }

  size_t upper_first(std::string_view text, size_t at) const {
    const size_t end = run_of(text, at, upper);
    return end > at ? run_of(text, end, lower) : at;
  }
};

// [^\r\n\p{L}\p{N}]?U*L+(?i:'s|…)?|[^\r\n\p{L}\p{N}]?U+L*(?i:'s|…)?
size_t cased_word(std::string_view text, size_t at, const CasedWords& words) {
  const Character first = character_at(text, at);
  const bool leads_word = !first.is(kLetter | kNumber) && !first.is_newline();
  const size_t after_first = at + first.size;
  for (const auto form : {&CasedWords::upper_then_lower, &CasedWords::upper_first}) {
    if (leads_word) {
      const size_t end = (words.*form)(text, after_first);
      if (end > after_first) return contraction(text, end);
    }
    if (const size_t end = (words.*form)(text, at); end > at) return contraction(text, end);
  }
  return at;
}

template <char kAlsoTrailing>
size_t scan_cased_rest(std::string_view text, size_t at) {
  const Character first = character_at(text, at);
  if (first.is(kNumber)) return numbers(text, at, 3);
  const size_t end = after_optional_space(
      text, at, [&](size_t begin) { return run_not_of(text, begin, kSpace | kLetter | kNumber); });
  if (end > at) return newlines(text, end, kAlsoTrailing);
  return white_space(text, at);
}

size_t scan_o200k(std::string_view text, size_t at) {
  const size_t end = cased_word(text, at, CasedWords{.excluded = 0});
  return end > at ? end : scan_cased_rest<'/'>(text, at);
}

size_t scan_kimi(std::string_view text, size_t at) {
  if (const size_t end = run_of(text, at, kHan); end > at) return end;
  const size_t end = cased_word(text, at, CasedWords{.excluded = kHan});
  return end > at ? end : scan_cased_rest<'\n'>(text, at);
}

constexpr std::string_view kDeepSeekWordsPattern =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen35Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
    R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kKimiPattern =
    R"([\p{Han}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::array<KnownPattern, 9> kKnownPatterns = {{
    {R"(\p{N}{1,3})", scan_three_digits},
    {"[一-龥぀-ゟ゠-ヿ]+", scan_cjk},
    {kDeepSeekWordsPattern, scan_deepseek_words},
    {kLlama3Pattern, scan_words<WordRules{kLetter, 3}>},
    {kQwen2Pattern, scan_words<WordRules{kLetter, 1}>},
    {kQwen35Pattern, scan_words<WordRules{kLetter | kMark, 1}>},
    {kGpt2Pattern, scan_gpt2},
    {kO200kPattern, scan_o200k},
    {kKimiPattern, scan_kimi},
}};

}  // namespace

size_t scan_digit(std::string_view text, size_t position) {
  return numbers(text, position, 1);
}

size_t scan_digits(std::string_view text, size_t position) {
  return run_of(text, position, kNumber);
}

size_t scan_gpt2(std::string_view text, size_t position) {
  if (const size_t end = lower_case_contraction(text, position); end > position) return end;
  for (const CategorySet set : {kLetter, kNumber}) {
    const size_t end = after_optional_space(text, position,
                                            [&](size_t begin) { return run_of(text, begin, set); });
    if (end > position) return end;
  }
  const size_t end = after_optional_space(text, position, [&](size_t begin) {
    return run_not_of(text, begin, kSpace | kLetter | kNumber);
  });
  return end > position ? end : white_space_without_lines(text, position);
}

std::span<const KnownPattern> known_patterns() {
  return kKnownPatterns;
}

Scanner find_scanner(std::string_view pattern) {
  std::string spelled;
  for (const char c : pattern) {
    if (c == '\r') {
      spelled += "\\r";
    } else if (c == '\n') {
      spelled += "\\n";
    } else {
      spelled += c;
    }
  }
  for (const KnownPattern& known : kKnownPatterns) {
    if (known.pattern == spelled) return known.scanner;
  }
  return nullptr;
}

}  // namespace wideep::tokenizer
