// The one normalisation of request targets. Guards and routes see only its result, so that no two
// spellings of a path are treated differently.
#pragma once

#include "base/result.h"

#include <string>
#include <string_view>

namespace wideep::http {

struct Target {
  std::string path;   // decoded once; no "//", "/./", "/../"; starts with '/'
  std::string query;  // as sent, without '?'
};

// Reads "/a/b?q" and "http://host/a/b?q". Example: "/v1//x/../models%2Fa?b" gives "/v1/models/a"
// and "b". kInvalidArgument on bad escapes, control characters, '#', and paths that climb above the
// root.
Result<Target> normalise_target(std::string_view target);

// The inverse for the path: escapes what may not stand in a target.
std::string encode_path(std::string_view path);

}  // namespace wideep::http
