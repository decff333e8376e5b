#include "api/error.h"

#include "base/json.h"
#include "base/utf8.h"

#include <fmt/format.h>

#include <utility>

namespace wideep::api {
namespace {

constexpr std::string_view kInvalidRequest = "invalid_request_error";
constexpr std::string_view kServerError = "server_error";
constexpr int kRetryAfterSeconds = 1;

ApiError bad_request(std::string_view code, std::string_view param, std::string message) {
  return {.status = 400,
          .message = std::move(message),
          .type = kInvalidRequest,
          .param = echo(param),
          .code = code};
}

std::string shorten(std::string_view text, size_t bytes_max) {
  if (text.size() <= bytes_max) return sanitize_utf8(text);
  size_t end = bytes_max;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
    --end;
  return sanitize_utf8(text.substr(0, end)) + "...";
}

}  // namespace

std::string ApiError::to_json() const {
  Json error;
  error.set("message", shorten(message, kMessageBytesMax));
  error.set("type", type);
  error.set("param", param.empty() ? Json() : Json(param));
  error.set("code", code.empty() ? Json() : Json(code));
  Json body;
  body.set("error", std::move(error));
  return body.dump();
}

ApiError invalid_value(std::string_view param, std::string message) {
  return bad_request("invalid_value", param, std::move(message));
}

ApiError unknown_field(std::string_view param) {
  return bad_request("unknown_field", param, fmt::format("Unknown field '{}'.", echo(param)));
}

ApiError not_implemented(std::string_view param, std::string_view reason) {
  return bad_request("not_implemented", param,
                     fmt::format("'{}' is not implemented: {}.", echo(param), reason));
}

ApiError invalid_body(std::string message) {
  return bad_request("invalid_json", {}, std::move(message));
}

ApiError model_not_found(std::string_view model) {
  return {.status = 404,
          .message = fmt::format("The model '{}' does not exist here.", echo(model)),
          .type = kInvalidRequest,
          .param = "model",
          .code = "model_not_found"};
}

ApiError invalid_api_key() {
  return {.status = 401,
          .message = "No valid API key was given. Send it as 'Authorization: Bearer KEY'.",
          .type = kInvalidRequest,
          .param = {},
          .code = "invalid_api_key"};
}

ApiError overloaded(std::string_view code, std::string message, int retry_after_s) {
  return {.status = 503,
          .message = std::move(message),
          .type = kServerError,
          .param = {},
          .code = code,
          .retry_after_s = retry_after_s};
}

ApiError internal_error(std::string message) {
  return {.status = 500,
          .message = std::move(message),
          .type = kServerError,
          .param = {},
          .code = "internal_error"};
}

ApiError from_http_status(int status, std::string_view message) {
  ApiError error{.status = status,
                 .message = std::string(message),
                 .type = status < 500 ? kInvalidRequest : kServerError,
                 .param = {},
                 .code = "bad_request"};
  switch (status) {
    case 404:
      error.code = "not_found";
      break;
    case 405:
      error.code = "method_not_allowed";
      break;
    case 408:
      error.code = "request_timeout";
      break;
    case 413:
      error.code = "request_too_large";
      break;
    case 414:
      error.code = "target_too_long";
      break;
    case 415:
      error.code = "unsupported_media_type";
      break;
    case 431:
      error.code = "headers_too_large";
      break;
    case 501:
      error.code = "not_implemented";
      break;
    case 503:
      error.code = "server_overloaded";
      break;
    case 505:
      error.code = "http_version_not_supported";
      break;
    default:
      if (status >= 500) error.code = "internal_error";
  }
  return error;
}

ApiError from_error(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
      return bad_request("invalid_request", {}, error.message);
    case ErrorCode::kNotFound: {
      ApiError missing = bad_request("not_found", {}, error.message);
      missing.status = 404;
      return missing;
    }
    case ErrorCode::kExhausted: {
      // The whole service has no room; clients and gateways may try again.
      ApiError full = overloaded("engine_overloaded", error.message, kRetryAfterSeconds);
      full.status = 429;
      full.type = "rate_limit_error";
      return full;
    }
    case ErrorCode::kUnavailable:
      return overloaded("engine_unavailable", error.message, kRetryAfterSeconds);
    case ErrorCode::kPeerLost:
      return overloaded("rank_lost", error.message, kRetryAfterSeconds);
    case ErrorCode::kTimeout:
      return overloaded("timeout", error.message, kRetryAfterSeconds);
    case ErrorCode::kCancelled:
      return overloaded("cancelled", error.message, kRetryAfterSeconds);
    case ErrorCode::kDataLoss:
      break;
  }
  return internal_error(error.message);
}

std::string echo(std::string_view text) {
  return shorten(text, kEchoBytesMax);
}

}  // namespace wideep::api
