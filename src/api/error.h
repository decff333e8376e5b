// The one shape of errors that clients see: OpenAI's, nested, with a machine-readable string code.
//   {"error":{"message":"...","type":"invalid_request_error","param":"n","code":"invalid_value"}}
#pragma once

#include "base/result.h"

#include <expected>
#include <string>
#include <string_view>

namespace wideep::api {

struct ApiError {
  int status = 500;       // of HTTP; not part of the body
  std::string message;    // for a person; cut at kMessageBytesMax when encoded
  std::string_view type;  // "invalid_request_error", "rate_limit_error", "server_error", ...
  std::string param;      // the field at fault; "" is null
  std::string_view code;  // "invalid_value", "model_not_found", "engine_overloaded", ...
  int retry_after_s = 0;  // not zero: a Retry-After header goes with it

  static constexpr size_t kMessageBytesMax = 1000;

  std::string to_json() const;
};

template <typename T>
using ApiResult = std::expected<T, ApiError>;

// 400. `param` is the field's name; neither echoes what the client sent beyond kEchoBytesMax.
ApiError invalid_value(std::string_view param, std::string message);
ApiError unknown_field(std::string_view param);
ApiError not_implemented(std::string_view param, std::string_view reason);
// 400, for bodies that are no JSON object.
ApiError invalid_body(std::string message);
// 404.
ApiError model_not_found(std::string_view model);
// 401.
ApiError invalid_api_key();
// 503 with Retry-After.
ApiError overloaded(std::string_view code, std::string message, int retry_after_s);
ApiError internal_error(std::string message);

// The error for a status of http's own ("413" ...).
ApiError from_http_status(int status, std::string_view message);

// The one mapping from our errors to HTTP.
ApiError from_error(const Error& error);

// At most so much of what a client sent comes back to it.
constexpr size_t kEchoBytesMax = 64;
// `text` shortened to that, whole characters, "..." where cut.
std::string echo(std::string_view text);

}  // namespace wideep::api
