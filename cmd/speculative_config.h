// The value of --speculative-config: vLLM's JSON, as far as there is something behind it.
#pragma once

#include "base/result.h"

#include <cstdint>
#include <string_view>

namespace wideep::cmd {

// Tokens to guess ahead with the model's own draft layer; "" is 0. kInvalidArgument for what is no
// such object, and, by name, for methods, depths and keys that are not implemented.
Result<int64_t> parse_speculative_config(std::string_view json);

}  // namespace wideep::cmd
