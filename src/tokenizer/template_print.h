// How values become text: Python's str(), repr() and json.dumps().
#pragma once

#include "base/result.h"
#include "tokenizer/template_budget.h"
#include "tokenizer/template_value.h"

#include <optional>
#include <string>

namespace wideep::tokenizer {

// str(value): what {{ value }} prints. Undefined prints nothing; a namespace, loop or function
// cannot be printed.
Result<Text> to_text(const Value& value, Budget& budget);

struct JsonOptions {
  bool ensure_ascii = false;
  bool sort_keys = false;
  // One level of indentation; none: all on one line.
  std::optional<std::string> indent;
  std::optional<std::string> item_separator;  // ", ", or "," with indent
  std::optional<std::string> key_separator;   // ": "
};

// json.dumps(value), as Hugging Face's tojson does it. Content throughout: it has strings of it.
Result<Text> to_json(const Value& value, const JsonOptions& options, Budget& budget);

// repr(float): 1.0, 1e+16, 1e-05, inf, nan.
std::string python_float(double value);

}  // namespace wideep::tokenizer
