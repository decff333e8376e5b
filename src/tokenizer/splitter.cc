#include "tokenizer/splitter.h"

#include "base/check.h"
#include "tokenizer/unicode.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <utility>

namespace wideep::tokenizer {
namespace {

using Part = Splitter::Part;

// Emits the gap before a match and the match.
class PartWriter {
 public:
  PartWriter(std::string_view text, FunctionRef<void(const Part&)> part)
      : text_(text), part_(part) {}

  void match(size_t begin, size_t end) {
    gap_until(begin);
    part_({text_.substr(begin, end - begin), true});
    done_ = end;
  }

  void finish() { gap_until(text_.size()); }

 private:
  void gap_until(size_t begin) {
    if (begin > done_) part_({text_.substr(done_, begin - done_), false});
  }

  std::string_view text_;
  FunctionRef<void(const Part&)> part_;
  size_t done_ = 0;
};

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 160> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

struct Splitter::Regex {
  struct Free {
    void operator()(pcre2_code* it) const { pcre2_code_free(it); }

    void operator()(pcre2_match_context* it) const { pcre2_match_context_free(it); }

    void operator()(pcre2_match_data* it) const { pcre2_match_data_free(it); }
  };

  std::unique_ptr<pcre2_code, Free> code;
  std::unique_ptr<pcre2_match_context, Free> context;
};

Splitter::Splitter() = default;
Splitter::Splitter(Splitter&&) noexcept = default;
Splitter& Splitter::operator=(Splitter&&) noexcept = default;
Splitter::~Splitter() = default;

Splitter Splitter::scanner(Scanner scanner) {
  Splitter splitter;
  splitter.scanner_ = scanner;
  return splitter;
}

Splitter Splitter::literal(std::string text) {
  Splitter splitter;
  splitter.literal_ = std::move(text);
  return splitter;
}

Result<Splitter> Splitter::regex(std::string_view pattern) {
  if (pattern.size() > kPatternBytesMax) {
    return invalid_argument("pattern has {} bytes, at most {} allowed", pattern.size(),
                            kPatternBytesMax);
  }
  int code = 0;
  PCRE2_SIZE offset = 0;
  auto regex = std::make_unique<Regex>();
  regex->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset,
                                  nullptr));
  if (regex->code == nullptr) {
    return invalid_argument("pattern at byte {}: {}", offset, message_of(code));
  }
  // Without JIT (no memory, or a CPU it does not know) the interpreter matches the same.
  static_cast<void>(pcre2_jit_compile(regex->code.get(), PCRE2_JIT_COMPLETE));
  regex->context.reset(pcre2_match_context_create(nullptr));
  WD_CHECK(regex->context != nullptr);
  pcre2_set_match_limit(regex->context.get(), kMatchSteps);
  Splitter splitter;
  splitter.regex_ = std::move(regex);
  return splitter;
}

Status Splitter::for_each_part(std::string_view text, FunctionRef<void(const Part&)> part) const {
  if (regex_ != nullptr) return match_regex(text, part);
  if (scanner_ != nullptr) {
    scan(text, part);
  } else {
    find_literal(text, part);
  }
  return {};
}

void Splitter::scan(std::string_view text, FunctionRef<void(const Part&)> part) const {
  PartWriter writer(text, part);
  for (size_t at = 0; at < text.size();) {
    const size_t end = scanner_(text, at);
    if (end > at) {
      writer.match(at, end);
      at = end;
    } else {
      at += character_at(text, at).size;
    }
  }
  writer.finish();
}

void Splitter::find_literal(std::string_view text, FunctionRef<void(const Part&)> part) const {
  PartWriter writer(text, part);
  if (!literal_.empty()) {
    for (size_t at = text.find(literal_); at != std::string_view::npos;
         at = text.find(literal_, at + literal_.size())) {
      writer.match(at, at + literal_.size());
    }
  }
  writer.finish();
}

Status Splitter::match_regex(std::string_view text, FunctionRef<void(const Part&)> part) const {
  const std::unique_ptr<pcre2_match_data, Regex::Free> data(
      pcre2_match_data_create_from_pattern(regex_->code.get(), nullptr));
  WD_CHECK(data != nullptr);
  PartWriter writer(text, part);
  for (size_t at = 0; at < text.size();) {
    const int count =
        pcre2_match(regex_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                    PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, data.get(), regex_->context.get());
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count < 0) {
      return error(ErrorCode::kExhausted, "pre-tokenizer pattern at byte {} of the text: {}", at,
                   message_of(count));
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
    // \K can set a match's start after its end or before `at`; such a pattern is not understood.
    if (range[0] < at || range[1] <= range[0]) {
      return invalid_argument("pre-tokenizer pattern moved its match with \\K");
    }
    writer.match(range[0], range[1]);
    at = range[1];
  }
  writer.finish();
  return {};
}

}  // namespace wideep::tokenizer
