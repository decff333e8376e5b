// The filters that templates may use: Jinja's, but for the few that need a host or a locale. They
// give lists where Jinja gives generators.
#pragma once

#include "base/result.h"
#include "tokenizer/template_functions.h"
#include "tokenizer/template_value.h"

#include <string_view>

namespace wideep::tokenizer {

bool is_filter(std::string_view name);

// value | name(arguments). `name` must be a filter.
Result<Value> apply_filter(std::string_view name,
                           const Value& value,
                           const Arguments& arguments,
                           Runtime& runtime);

}  // namespace wideep::tokenizer
