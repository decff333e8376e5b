// One way to find matches in a text: a hand-written scanner, a literal string, or PCRE2.
#pragma once

#include "base/function_ref.h"
#include "base/result.h"
#include "tokenizer/scanner.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace wideep::tokenizer {

// Immutable after construction; any number of threads may call for_each_part.
class Splitter {
 public:
  static Splitter scanner(Scanner scanner);
  static Splitter literal(std::string text);
  // PCRE2 with UTF and UCP, for patterns that have no scanner. kInvalidArgument if it does not
  // compile. A match that needs more than kMatchSteps steps fails the text with kExhausted.
  static Result<Splitter> regex(std::string_view pattern);

  static constexpr uint32_t kMatchSteps = 1'000'000;
  static constexpr size_t kPatternBytesMax = 16 * 1024;

  Splitter(Splitter&&) noexcept;
  Splitter& operator=(Splitter&&) noexcept;
  ~Splitter();

  struct Part {
    std::string_view text;  // never empty
    bool is_match;
  };

  // Calls `part` with the matches of well-formed `text` and the gaps between them, in order. All
  // parts together are the text.
  Status for_each_part(std::string_view text, FunctionRef<void(const Part&)> part) const;

 private:
  struct Regex;

  Splitter();
  void scan(std::string_view text, FunctionRef<void(const Part&)> part) const;
  void find_literal(std::string_view text, FunctionRef<void(const Part&)> part) const;
  Status match_regex(std::string_view text, FunctionRef<void(const Part&)> part) const;

  Scanner scanner_ = nullptr;
  std::string literal_;
  std::unique_ptr<Regex> regex_;
};

}  // namespace wideep::tokenizer
