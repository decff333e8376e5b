// YAML documents as Json values. For configuration files only, never for bytes from a network.
#pragma once

#include "base/json.h"
#include "base/result.h"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace wideep {

inline constexpr int64_t kYamlBytesMax = 1 << 20;
inline constexpr int64_t kYamlValuesMax = 100000;  // after aliases are expanded

// The line on which each member and item stands, by its path: "groups[0].ranks".
using YamlLines = std::map<std::string, int, std::less<>>;

// One document. Plain scalars get YAML 1.2 core types (null, booleans, integers, floats), quoted
// ones are strings; map keys must be strings. Fails with line and column, and beyond the limits.
// `lines`, if given, is filled.
Result<Json> parse_yaml(std::string_view text, YamlLines* lines = nullptr);

}  // namespace wideep
