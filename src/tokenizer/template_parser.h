// Parses the Jinja subset that chat templates use.
//
// Statements: if/elif/else, for (with if, else; no recursive), set (also as a block and on
// namespaces), macro, break, continue, generation, raw, comments. Expressions: all of Jinja's but
// `**` and argument unpacking. Whatever else a template says is refused by name and line, as are
// unknown filters and tests.
#pragma once

#include "base/result.h"
#include "tokenizer/template_ast.h"

#include <string_view>

namespace wideep::tokenizer {

struct ParseLimits {
  size_t source_bytes_max = 1 << 20;
  int nesting_max = 100;  // of brackets and blocks
  int depth_max = 200;    // of an expression's tree; a + b + c has 3
};

Result<Block> parse_template(std::string_view source, const ParseLimits& limits = {});

}  // namespace wideep::tokenizer
