// The secrets that ranks share, from files.
#pragma once

#include "base/result.h"
#include "fabric/tls.h"

#include <string>

namespace wideep::cmd {

// kInvalidArgument if others than its owner can read it, or if it is too short.
Result<fabric::PresharedKey> read_key_file(const std::string& path);

}  // namespace wideep::cmd
