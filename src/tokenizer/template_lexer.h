// Cuts a Jinja template into tokens, with white space handled as Hugging Face sets it: trim_blocks
// and lstrip_blocks on, one newline at the end of the template dropped, '-' and '+' signs
// respected.
#pragma once

#include "base/result.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::tokenizer {

struct TemplateToken {
  enum class Kind {
    kText,  // outside of tags
    kOutputBegin,
    kOutputEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,  // text: its value, escapes resolved
    kInteger,
    kFloat,
    kOperator,
    kEnd,  // of the template
  };

  Kind kind;
  std::string text;
  int line;

  bool is(Kind wanted, std::string_view wanted_text) const {
    return kind == wanted && text == wanted_text;
  }
};

// The tokens, the last one being kEnd. Errors name the line.
Result<std::vector<TemplateToken>> lex_template(std::string_view source);

}  // namespace wideep::tokenizer
