#include "tokenizer/template_cursor.h"

#include <algorithm>

namespace wideep::tokenizer {

TokenCursor::TokenCursor(std::vector<TemplateToken> tokens, int nesting_max)
    : tokens_(std::move(tokens)), nesting_max_(nesting_max) {}

const TemplateToken& TokenCursor::next() const {
  return tokens_[std::min(at_ + 1, tokens_.size() - 1)];
}

void TokenCursor::advance() {
  at_ = std::min(at_ + 1, tokens_.size() - 1);
}

bool TokenCursor::take_operator(std::string_view text) {
  if (!is_operator(text)) return false;
  advance();
  return true;
}

bool TokenCursor::take_name(std::string_view text) {
  if (!is_name(text)) return false;
  advance();
  return true;
}

Status TokenCursor::expect(Kind kind, std::string_view what) {
  if (now().kind != kind) return fail("expected {}, found {}", what, describe_now());
  advance();
  return {};
}

Status TokenCursor::expect_operator(std::string_view text) {
  if (!take_operator(text)) return fail("expected '{}', found {}", text, describe_now());
  return {};
}

Result<std::string> TokenCursor::expect_name(std::string_view what) {
  if (now().kind != Kind::kName) return fail("expected {}, found {}", what, describe_now());
  std::string name = now().text;
  advance();
  return name;
}

std::string TokenCursor::describe_now() const {
  switch (now().kind) {
    case Kind::kEnd:
      return "the end of the template";
    case Kind::kText:
      return "text";
    case Kind::kOutputBegin:
      return "'{{'";
    case Kind::kOutputEnd:
      return "'}}'";
    case Kind::kBlockBegin:
      return "'{%'";
    case Kind::kBlockEnd:
      return "'%}'";
    default:
      return "'" + now().text.substr(0, 40) + "'";
  }
}

Status TokenCursor::Level::check() const {
  if (cursor_.level_ > cursor_.nesting_max_) {
    return cursor_.fail("nested deeper than {}", cursor_.nesting_max_);
  }
  return {};
}

}  // namespace wideep::tokenizer
