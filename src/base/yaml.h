// YAML documents as Json values. For configuration files only, never for bytes from a network.
#pragma once

#include "base/json.h"
#include "base/result.h"

#include <cstdint>
#include <string_view>

namespace wideep {

inline constexpr int64_t kYamlBytesMax = 1 << 20;
inline constexpr int64_t kYamlValuesMax = 100000;  // after aliases are expanded

// One document. Plain scalars get YAML 1.2 core types (null, booleans, integers, floats), quoted
// ones are strings; map keys must be strings. Fails with line and column, and beyond the limits.
Result<Json> parse_yaml(std::string_view text);

}  // namespace wideep
