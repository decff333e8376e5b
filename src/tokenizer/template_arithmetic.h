// Python's + - * / // % on template values.
#pragma once

#include "base/result.h"
#include "tokenizer/template_budget.h"
#include "tokenizer/template_value.h"

#include <string_view>

namespace wideep::tokenizer {

// kInvalidArgument for operands that the operator does not take, division by zero, and integers
// beyond 64 bits.
Result<Value> apply_operator(std::string_view op, const Value& a, const Value& b, Budget& budget);

}  // namespace wideep::tokenizer
