// How a call says that the world failed: Result<T> carries a value or an Error, Status only the
// latter. Bugs in our own code are WD_CHECKs (base/check.h); "nothing there" is std::optional.
#pragma once

#include <fmt/core.h>

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace wideep {

enum class ErrorCode {
  kInvalidArgument,  // the caller, a file or a peer sent something that is not allowed
  kNotFound,
  kUnavailable,  // try again later: not ready, shutting down, no endpoint
  kPeerLost,     // a rank of the group is gone; the epoch ends
  kTimeout,
  kExhausted,  // a named limit was hit
  kDataLoss,   // bytes that should have been right are not: checksum, stale block, torn file
  kCancelled,
};
inline constexpr int kNumErrorCodes = 8;

// "invalid argument", "peer lost", ...
std::string_view name(ErrorCode code);

struct [[nodiscard]] Error {
  ErrorCode code;
  std::string message;  // what, which one, how much
};

template <typename T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

// error(ErrorCode::kExhausted, "{} blocks wanted, {} free", wanted, free)
template <typename... Args>
std::unexpected<Error> error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}

template <typename... Args>
std::unexpected<Error> invalid_argument(fmt::format_string<Args...> format, Args&&... args) {
  return error(ErrorCode::kInvalidArgument, format, std::forward<Args>(args)...);
}

// Passes an error on with a word about where: "config.json: key 'n_group' ...".
std::unexpected<Error> with_context(Error error, std::string_view context);

}  // namespace wideep

#define WD_CONCAT_INNER(a, b) a##b
#define WD_CONCAT(a, b) WD_CONCAT_INNER(a, b)

// Returns the error of a Status or Result from the enclosing function.
#define WD_TRY(expr)                                                                              \
  do {                                                                                            \
    auto&& wd_status = (expr);                                                                    \
    if (!wd_status) return std::unexpected(std::forward<decltype(wd_status)>(wd_status).error()); \
  } while (false)

// WD_ASSIGN_OR_RETURN(auto file, open(path));
#define WD_ASSIGN_OR_RETURN(lhs, expr) \
  WD_ASSIGN_OR_RETURN_IMPL(WD_CONCAT(wd_result_, __LINE__), lhs, expr)
#define WD_ASSIGN_OR_RETURN_IMPL(result, lhs, expr)                                    \
  auto&& result = (expr);                                                              \
  if (!result) return std::unexpected(std::forward<decltype(result)>(result).error()); \
  lhs = *std::forward<decltype(result)>(result)
