#include "model/config_keys.h"

#include "base/check.h"

namespace wideep::model {

ConfigKeys::ConfigKeys(const Json& object, std::string prefix)
    : object_(object), prefix_(std::move(prefix)) {
  WD_CHECK(object.is_object());
}

bool ConfigKeys::has(std::string_view key) const {
  return find(key) != nullptr;
}

const Json* ConfigKeys::find(std::string_view key) const {
  const Json* value = object_.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

void ConfigKeys::fail(std::string_view key, std::string_view problem) {
  if (status_) status_ = invalid_argument("key '{}{}': {}", prefix_, key, problem);
}

void ConfigKeys::adopt(const Status& inner) {
  if (status_) status_ = inner;
}

int64_t ConfigKeys::checked(std::string_view key, const Json& value, IntRange range) {
  const std::optional<int64_t> integer = value.as_int();
  if (!integer) {
    fail(key, fmt::format("an integer is wanted, not a {}", name(value.kind())));
    return range.min;
  }
  if (*integer < range.min || *integer > range.max) {
    fail(key, fmt::format("{} is outside [{}, {}]", *integer, range.min, range.max));
    return range.min;
  }
  return *integer;
}

int64_t ConfigKeys::integer(std::string_view key, IntRange range) {
  const Json* value = find(key);
  if (value != nullptr) return checked(key, *value, range);
  fail(key, "missing");
  return range.min;
}

int64_t ConfigKeys::integer_or(std::string_view key, int64_t fallback, IntRange range) {
  const Json* value = find(key);
  return value == nullptr ? fallback : checked(key, *value, range);
}

double ConfigKeys::number(std::string_view key, DoubleRange range) {
  if (!has(key)) fail(key, "missing");
  return number_or(key, range.min, range);
}

double ConfigKeys::number_or(std::string_view key, double fallback, DoubleRange range) {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  const std::optional<double> number = value->as_double();
  if (!number) {
    fail(key, fmt::format("a number is wanted, not a {}", name(value->kind())));
    return range.min;
  }
  if (!(*number >= range.min && *number <= range.max)) {
    fail(key, fmt::format("{} is outside [{}, {}]", *number, range.min, range.max));
    return range.min;
  }
  return *number;
}

bool ConfigKeys::boolean_or(std::string_view key, bool fallback) {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  const std::optional<bool> boolean = value->as_bool();
  if (!boolean) fail(key, fmt::format("a boolean is wanted, not a {}", name(value->kind())));
  return boolean.value_or(fallback);
}

std::string ConfigKeys::string(std::string_view key) {
  if (!has(key)) fail(key, "missing");
  return string_or(key, "");
}

std::string ConfigKeys::string_or(std::string_view key, std::string_view fallback) {
  const Json* value = find(key);
  if (value == nullptr) return std::string(fallback);
  if (value->as_string() != nullptr) return *value->as_string();
  fail(key, fmt::format("a string is wanted, not a {}", name(value->kind())));
  return std::string(fallback);
}

std::vector<int64_t> ConfigKeys::integers(std::string_view key, IntRange range) {
  constexpr size_t kCountMax = 65536;
  const Json* value = find(key);
  if (value == nullptr) return {};
  const Json::Array* array = value->as_array();
  if (array == nullptr) return {checked(key, *value, range)};
  if (array->size() > kCountMax) {
    fail(key, fmt::format("{} entries, at most {} allowed", array->size(), kCountMax));
    return {};
  }
  std::vector<int64_t> out;
  for (const Json& item : *array)
    out.push_back(checked(key, item, range));
  return out;
}

const Json* ConfigKeys::object(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr || value->is_object()) return value;
  fail(key, fmt::format("an object is wanted, not a {}", name(value->kind())));
  return nullptr;
}

}  // namespace wideep::model
