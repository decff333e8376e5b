// The place of the template parsers in a template's tokens, and how they say what is wrong there.
#pragma once

#include "base/result.h"
#include "tokenizer/template_lexer.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace wideep::tokenizer {

class TokenCursor {
 public:
  using Kind = TemplateToken::Kind;

  // `tokens` ends with a kEnd, which the cursor never passes.
  TokenCursor(std::vector<TemplateToken> tokens, int nesting_max);

  const TemplateToken& now() const { return tokens_[at_]; }

  const TemplateToken& next() const;
  void advance();

  bool is_operator(std::string_view text) const { return now().is(Kind::kOperator, text); }

  bool is_name(std::string_view text) const { return now().is(Kind::kName, text); }

  // Takes the token if it is that one.
  bool take_operator(std::string_view text);
  bool take_name(std::string_view text);

  // Takes the token or fails.
  Status expect(Kind kind, std::string_view what);
  Status expect_operator(std::string_view text);
  Result<std::string> expect_name(std::string_view what);

  std::string describe_now() const;

  template <typename... Args>
  std::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) const {
    return invalid_argument("line {}: {}", now().line,
                            fmt::format(format, std::forward<Args>(args)...));
  }

  // One level of recursion for as long as it lives.
  class Level {
   public:
    explicit Level(TokenCursor& cursor) : cursor_(cursor) { ++cursor_.level_; }

    ~Level() { --cursor_.level_; }

    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

    // Fails beyond nesting_max.
    Status check() const;

   private:
    TokenCursor& cursor_;
  };

 private:
  std::vector<TemplateToken> tokens_;
  size_t at_ = 0;
  int level_ = 0;
  int nesting_max_;
};

}  // namespace wideep::tokenizer
