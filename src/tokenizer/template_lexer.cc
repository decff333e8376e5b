#include "tokenizer/template_lexer.h"

#include "base/utf8.h"
#include "tokenizer/unicode.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

namespace wideep::tokenizer {
namespace {

using Kind = TemplateToken::Kind;

// Line ends become \n; one at the very end goes away.
std::string with_plain_lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool starts_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

void trim_right(std::string_view& text) {
  while (!text.empty() && is_space(text.back()))
    text.remove_suffix(1);
}

// lstrip_blocks: what stands between the line's beginning and the tag, if it is only white space.
void trim_indent(std::string_view& text, bool line_starting) {
  const size_t newline = text.rfind('\n');
  if (newline == std::string_view::npos && !line_starting) return;
  const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
  if (std::all_of(text.begin() + static_cast<std::ptrdiff_t>(begin), text.end(), is_space)) {
    text = text.substr(0, begin);
  }
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  Result<std::vector<TemplateToken>> run() {
    while (at_ < source_.size())
      WD_TRY(next_tag());
    add(Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  // The text up to the next tag, then that tag.
  Status next_tag() {
    const size_t open = find_tag();
    std::string_view text = std::string_view(source_).substr(at_, open - at_);
    const bool line_starting = at_ == 0 || source_[at_ - 1] == '\n';
    if (open == source_.size()) {
      add_text(text);
      advance_to(open);
      return {};
    }
    const char kind = source_[open + 1];
    const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
    if (sign == '-') {
      trim_right(text);
    } else if (sign != '+' && kind != '{') {
      trim_indent(text, line_starting);
    }
    add_text(text);
    advance_to(open + 2 + (sign == '-' || sign == '+' ? 1 : 0));
    if (kind == '#') return comment();
    if (kind == '%' && next_is_raw()) return raw();
    add(kind == '{' ? Kind::kOutputBegin : Kind::kBlockBegin, "");
    return inside_tag(kind == '{' ? "}}" : "%}");
  }

  size_t find_tag() const {
    for (size_t i = source_.find('{', at_); i != std::string::npos; i = source_.find('{', i + 1)) {
      const char next = i + 1 < source_.size() ? source_[i + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') return i;
    }
    return source_.size();
  }

  void advance_to(size_t position) {
    line_ +=
        static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                    source_.begin() + static_cast<std::ptrdiff_t>(position), '\n'));
    at_ = position;
  }

  void skip_space() {
    size_t end = at_;
    while (end < source_.size() && is_space(source_[end]))
      ++end;
    advance_to(end);
  }

  void add(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void add_text(std::string_view text) {
    if (!text.empty()) add(Kind::kText, std::string(text));
  }

  std::string_view rest() const { return std::string_view(source_).substr(at_); }

  // Whether `end` (with its sign) is next; takes it and the white space that its sign and
  // trim_blocks remove.
  bool take_end(std::string_view end) {
    if (rest().starts_with(end)) {
      advance_to(at_ + end.size());
      if (end != "}}" && rest().starts_with('\n')) advance_to(at_ + 1);
      return true;
    }
    if (rest().substr(std::min<size_t>(1, rest().size())).starts_with(end)) {
      if (rest().front() == '-') {
        advance_to(at_ + 1 + end.size());
        skip_space();
        return true;
      }
      if (rest().front() == '+' && end != "}}") {
        advance_to(at_ + 1 + end.size());
        return true;
      }
    }
    return false;
  }

  Status comment() {
    const int line = line_;
    const size_t close = source_.find("#}", at_);
    if (close == std::string::npos) return invalid_argument("line {}: comment has no end", line);
    const bool has_sign = close > at_ && (source_[close - 1] == '-' || source_[close - 1] == '+');
    advance_to(has_sign ? close - 1 : close);
    static_cast<void>(take_end("#}"));
    return {};
  }

  // Whether the block that was just opened says exactly "raw".
  bool next_is_raw() const { return raw_end("raw").has_value(); }

  // The position behind white space, `word` and white space, if that is followed by a block's end.
  std::optional<size_t> raw_end(std::string_view word, size_t from = std::string::npos) const {
    size_t i = from == std::string::npos ? at_ : from;
    while (i < source_.size() && is_space(source_[i]))
      ++i;
    if (!std::string_view(source_).substr(i).starts_with(word)) return std::nullopt;
    i += word.size();
    while (i < source_.size() && is_space(source_[i]))
      ++i;
    const std::string_view tail = std::string_view(source_).substr(i, 3);
    const bool ends = tail.starts_with("%}") || tail == "-%}" || tail == "+%}";
    return ends ? std::optional(i) : std::nullopt;
  }

  Status raw() {
    const int line = line_;
    advance_to(*raw_end("raw"));
    if (rest().front() == '-') {
      advance_to(at_ + 3);
      skip_space();
    } else {
      advance_to(at_ + (rest().front() == '+' ? 3 : 2));
    }
    for (size_t open = source_.find("{%", at_); open != std::string::npos;
         open = source_.find("{%", open + 1)) {
      const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
      const size_t inside = open + 2 + (sign == '-' || sign == '+' ? 1 : 0);
      const std::optional<size_t> end = raw_end("endraw", inside);
      if (!end) continue;
      std::string_view text = std::string_view(source_).substr(at_, open - at_);
      const bool line_starting = source_[at_ - 1] == '\n';
      if (sign == '-') {
        trim_right(text);
      } else if (sign != '+') {
        trim_indent(text, line_starting);
      }
      add_text(text);
      advance_to(*end);
      static_cast<void>(take_end("%}"));
      return {};
    }
    return invalid_argument("line {}: raw block has no end", line);
  }

  Status inside_tag(std::string_view end) {
    const int line = line_;
    for (;;) {
      skip_space();
      if (at_ == source_.size()) return invalid_argument("line {}: tag has no end", line);
      if (brackets_.empty()) {
        const int end_line = line_;
        if (take_end(end)) {
          tokens_.push_back({end == "}}" ? Kind::kOutputEnd : Kind::kBlockEnd, "", end_line});
          return {};
        }
      }
      WD_TRY(expression_token());
    }
  }

  Status expression_token() {
    const char c = source_[at_];
    if (starts_name(c)) {
      size_t end = at_;
      while (end < source_.size() && (starts_name(source_[end]) || is_digit(source_[end])))
        ++end;
      add(Kind::kName, source_.substr(at_, end - at_));
      advance_to(end);
      return {};
    }
    if (is_digit(c)) return number();
    if (c == '\'' || c == '"') return string();
    return symbol();
  }

  size_t digits_from(size_t i) const {
    while (i < source_.size() && (is_digit(source_[i]) || source_[i] == '_'))
      ++i;
    return i;
  }

  bool digit_at(size_t i) const { return i < source_.size() && is_digit(source_[i]); }

  Status number() {
    size_t end = digits_from(at_);
    // After a dot there are integers only: in a.0.1 both are indices.
    const bool after_dot = !tokens_.empty() && tokens_.back().is(Kind::kOperator, ".");
    Kind kind = Kind::kInteger;
    if (!after_dot && end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
      end = digits_from(end + 1);
      kind = Kind::kFloat;
    }
    if (!after_dot && end < source_.size() && (source_[end] | 0x20) == 'e') {
      const size_t sign =
          end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-') ? 1 : 0;
      if (digit_at(end + 1 + sign)) {
        end = digits_from(end + 1 + sign);
        kind = Kind::kFloat;
      }
    }
    std::string text = source_.substr(at_, end - at_);
    std::erase(text, '_');
    add(kind, std::move(text));
    advance_to(end);
    return {};
  }

  Status string() {
    const int line = line_;
    const char quote = source_[at_];
    std::string value;
    for (size_t i = at_ + 1; i < source_.size(); ++i) {
      if (source_[i] == quote) {
        tokens_.push_back({Kind::kString, std::move(value), line});
        advance_to(i + 1);
        return {};
      }
      if (source_[i] != '\\') {
        value += source_[i];
      } else if (++i < source_.size()) {
        WD_TRY(escape(i, value));
      }
    }
    return invalid_argument("line {}: string has no end", line);
  }

  // The escape whose letter is at `i`, as Python reads it; leaves `i` at its last character.
  Status escape(size_t& i, std::string& value) const {
    static constexpr std::string_view kLetters = "\\'\"abfnrtv";
    static constexpr std::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
    static_assert(kLetters.size() == kValues.size());
    const char c = source_[i];
    if (c == '\n') return {};
    if (const size_t simple = kLetters.find(c); simple != std::string_view::npos) {
      value += kValues[simple];
      return {};
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits > 0) {
      char32_t code = 0;
      for (size_t d = 0; d < digits; ++d) {
        static constexpr std::string_view kHex = "0123456789abcdef";
        const char digit = ++i < source_.size() ? source_[i] : '\0';
        const size_t number = kHex.find(is_digit(digit) ? digit : static_cast<char>(digit | 0x20));
        if (number == std::string_view::npos) {
          return invalid_argument("line {}: \\{} needs {} hexadecimal digits", line_, c, digits);
        }
        code = code << 4 | static_cast<char32_t>(number);
      }
      if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
        return invalid_argument("line {}: \\{} names no character", line_, c);
      }
      append_utf8(value, code);
      return {};
    }
    if (c >= '0' && c <= '7') {
      char32_t code = 0;
      for (size_t d = 0; d < 3 && i < source_.size() && source_[i] >= '0' && source_[i] <= '7';
           ++d) {
        code = code << 3 | static_cast<char32_t>(source_[i++] - '0');
      }
      --i;
      append_utf8(value, code);
      return {};
    }
    value += '\\';
    value += c;
    return {};
  }

  Status symbol() {
    static constexpr std::array<std::string_view, 6> kPairs = {"**", "//", "==", "!=", ">=", "<="};
    static constexpr std::string_view kSingles = "+-*/%~[](){}<>=.:|,;";
    for (const std::string_view pair : kPairs) {
      if (!rest().starts_with(pair)) continue;
      add(Kind::kOperator, std::string(pair));
      advance_to(at_ + 2);
      return {};
    }
    const char c = source_[at_];
    if (kSingles.find(c) == std::string_view::npos) {
      const size_t size = character_at(source_, at_).size;
      return invalid_argument("line {}: unexpected '{}'", line_, source_.substr(at_, size));
    }
    if (c == '(' || c == '[' || c == '{') brackets_ += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (!brackets_.ends_with(c)) return invalid_argument("line {}: unexpected '{}'", line_, c);
      brackets_.pop_back();
    }
    add(Kind::kOperator, std::string(1, c));
    advance_to(at_ + 1);
    return {};
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  std::string brackets_;  // the closing ones that are awaited
  std::vector<TemplateToken> tokens_;
};

}  // namespace

Result<std::vector<TemplateToken>> lex_template(std::string_view source) {
  if (!is_valid_utf8(source)) return invalid_argument("template is not valid UTF-8");
  return Lexer(with_plain_lines(source)).run();
}

}  // namespace wideep::tokenizer
