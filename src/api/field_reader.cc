#include "api/field_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

namespace wideep::api {

FieldReader::FieldReader(const Json& body, std::string prefix)
    : body_(body), prefix_(std::move(prefix)) {
  const Json::Object* object = body.as_object();
  if (object == nullptr) {
    const std::string what = prefix_.empty() ? "The body" : fmt::format("'{}'", prefix_);
    fail(invalid_body(fmt::format("{} must be a JSON object, not {}.", what, name(body.kind()))));
    return;
  }
  unread_.reserve(object->size());
  for (const auto& [key, value] : *object)
    unread_.emplace(key, &value);
}

const Json* FieldReader::take(std::string_view name) {
  const auto it = unread_.find(name);
  if (it == unread_.end()) return nullptr;
  const Json* value = it->second;
  unread_.erase(it);
  return value->is_null() ? nullptr : value;
}

void FieldReader::read(std::string_view name, bool& target) {
  const Json* value = take(name);
  if (value == nullptr) return;
  if (!value->is_bool()) return wrong_type(name, "a boolean", *value);
  target = *value->as_bool();
}

void FieldReader::read(std::string_view name, std::string& target, size_t bytes_max) {
  const Json* value = take(name);
  if (value == nullptr) return;
  const std::string* text = value->as_string();
  if (text == nullptr) return wrong_type(name, "a string", *value);
  if (text->size() > bytes_max) {
    return fail(name, fmt::format("may have at most {} bytes, not {}", bytes_max, text->size()));
  }
  target = *text;
}

void FieldReader::read(std::string_view name, int64_t& target, Range<int64_t> range) {
  if (const auto value = integer(name, range)) target = *value;
}

void FieldReader::read(std::string_view name,
                       std::optional<int64_t>& target,
                       Range<int64_t> range) {
  if (const auto value = integer(name, range)) target = value;
}

void FieldReader::read(std::string_view name, double& target, Range<double> range) {
  if (const auto value = number(name, range)) target = *value;
}

void FieldReader::read(std::string_view name, std::optional<double>& target, Range<double> range) {
  if (const auto value = number(name, range)) target = value;
}

void FieldReader::read(std::string_view name,
                       std::vector<TokenId>& target,
                       Range<size_t> num_items) {
  const Json* value = take(name);
  if (value == nullptr) return;
  const Json::Array* items = value->as_array();
  if (items == nullptr) return wrong_type(name, "an array of token ids", *value);
  if (items->size() > num_items.max) {
    return fail(name,
                fmt::format("may have at most {} items, not {}", num_items.max, items->size()));
  }
  if (items->size() < num_items.min) {
    return fail(name,
                fmt::format("must have at least {} items, not {}", num_items.min, items->size()));
  }
  for (const Json& item : *items) {
    const auto id = token_id_of(item);
    if (!id) return fail(name, "must hold token ids: integers from 0 to 2147483647");
    target.push_back(*id);
  }
}

void FieldReader::refuse(std::string_view name, std::string_view reason) {
  if (take(name) != nullptr) fail(not_implemented(prefix_ + std::string(name), reason));
}

void FieldReader::refuse_unless(std::string_view name,
                                const Json& harmless,
                                std::string_view reason) {
  const Json* value = take(name);
  if (value == nullptr || *value == harmless) return;
  const bool is_same_number = value->is_number() && value->as_double() == harmless.as_double();
  if (!is_same_number) {
    fail(not_implemented(prefix_ + std::string(name), reason));
  }
}

void FieldReader::ignore(std::string_view name) {
  unread_.erase(name);
}

void FieldReader::fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

void FieldReader::fail(std::string_view name, std::string message) {
  const std::string full = prefix_ + std::string(name);
  fail(invalid_value(full, fmt::format("'{}' {}.", full, message)));
}

std::optional<ApiError> FieldReader::finish() {
  if (!error_ && !unread_.empty()) {
    // The first in the order of the body, so that the answer is always the same.
    for (const auto& [key, value] : *body_.as_object()) {
      if (unread_.contains(key)) {
        fail(unknown_field(prefix_ + key));
        break;
      }
    }
  }
  return error_;
}

void FieldReader::wrong_type(std::string_view name, std::string_view wanted, const Json& value) {
  fail(name, fmt::format("must be {}, not {}", wanted, wideep::name(value.kind())));
}

std::optional<int64_t> FieldReader::integer(std::string_view name, Range<int64_t> range) {
  const Json* value = take(name);
  if (value == nullptr) return std::nullopt;
  std::optional<int64_t> result = value->as_int();
  // 5.0 is an integer to JavaScript's and Python's users.
  const auto real = value->as_double();
  if (!result && real && std::trunc(*real) == *real && std::abs(*real) < 0x1p53) {
    result = static_cast<int64_t>(*real);
  }
  if (!result) {
    wrong_type(name, "an integer in 64 bits", *value);
  } else if (*result < range.min || *result > range.max) {
    fail(name, fmt::format("must be from {} to {}, not {}", range.min, range.max, *result));
    return std::nullopt;
  }
  return result;
}

std::optional<double> FieldReader::number(std::string_view name, Range<double> range) {
  const Json* value = take(name);
  if (value == nullptr) return std::nullopt;
  const std::optional<double> result = value->as_double();
  if (!result) {
    wrong_type(name, "a number", *value);
  } else if (*result < range.min || *result > range.max) {
    fail(name, fmt::format("must be from {} to {}, not {}", range.min, range.max, *result));
    return std::nullopt;
  }
  return result;
}

std::optional<TokenId> token_id_of(const Json& value) {
  const auto id = value.as_int();
  if (!id || *id < 0 || *id > std::numeric_limits<int32_t>::max()) return std::nullopt;
  return static_cast<TokenId>(*id);
}

}  // namespace wideep::api
