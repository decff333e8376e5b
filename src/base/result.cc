#include "base/result.h"

#include <array>
#include <iterator>

namespace wideep {

std::string_view name(ErrorCode code) {
  static constexpr std::array<std::string_view, kNumErrorCodes> kNames = {
      "invalid argument", "not found", "unavailable", "peer lost",
      "timeout",          "exhausted", "data loss",   "cancelled"};
  return kNames[static_cast<size_t>(code)];
}

std::unexpected<Error> with_context(Error error, std::string_view context) {
  return std::unexpected(Error{error.code, fmt::format("{}: {}", context, error.message)});
}

}  // namespace wideep
