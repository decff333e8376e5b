// JSON values, a bounded parser and a writer. The parser library is hidden in json.cc.
//
// Objects keep the order of their keys (chat templates print them). Numbers that are integers and
// fit 64 signed bits are kInt, all others kDouble; NaN and infinities do not exist and are written
// as null. Thread: values are plain data.
#pragma once

#include "base/result.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace wideep {

class Json {
 public:
  enum class Kind { kNull, kBool, kInt, kDouble, kString, kArray, kObject };
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;

  Json() = default;

  Json(std::nullptr_t) {}  // NOLINT(google-explicit-constructor)

  Json(bool value) : value_(value) {}  // NOLINT(google-explicit-constructor)

  Json(double value) : value_(value) {}  // NOLINT(google-explicit-constructor)

  Json(std::string value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)

  Json(std::string_view value)  // NOLINT(google-explicit-constructor)
      : value_(std::string(value)) {}

  Json(const char* value) : value_(std::string(value)) {}  // NOLINT(google-explicit-constructor)

  Json(Array value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)

  Json(Object value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)

  template <typename T>
    requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
  Json(T value) : value_(static_cast<int64_t>(value)) {}  // NOLINT(google-explicit-constructor)

  Kind kind() const { return static_cast<Kind>(value_.index()); }

  bool is_null() const { return kind() == Kind::kNull; }

  bool is_bool() const { return kind() == Kind::kBool; }

  bool is_int() const { return kind() == Kind::kInt; }

  bool is_number() const { return is_int() || kind() == Kind::kDouble; }

  bool is_string() const { return kind() == Kind::kString; }

  bool is_array() const { return kind() == Kind::kArray; }

  bool is_object() const { return kind() == Kind::kObject; }

  // The value if it has that kind. as_double also takes integers.
  std::optional<bool> as_bool() const;
  std::optional<int64_t> as_int() const;
  std::optional<double> as_double() const;

  const std::string* as_string() const { return std::get_if<std::string>(&value_); }

  const Array* as_array() const { return std::get_if<Array>(&value_); }

  const Object* as_object() const { return std::get_if<Object>(&value_); }

  Array* as_array() { return std::get_if<Array>(&value_); }

  Object* as_object() { return std::get_if<Object>(&value_); }

  // The member of that name, or nullptr (also when this is no object). Linear: iterate over large
  // objects.
  const Json* find(std::string_view key) const;
  Json* find(std::string_view key);
  // Sets a member, keeping its place when it exists. A null value becomes an object first.
  Json& set(std::string_view key, Json value);
  void erase(std::string_view key);
  // Appends to an array. A null value becomes an array first.
  Json& append(Json value);

  bool operator==(const Json& other) const = default;

  // Compact: {"a":1,"b":[true,null]}. Invalid UTF-8 is written as U+FFFD.
  std::string dump() const;
  void dump_to(std::string& out) const;

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

// "null", "boolean", "integer", "number", "string", "array", "object".
std::string_view name(Json::Kind kind);

struct JsonLimits {
  int depth_max = 64;
  int64_t values_max = 64 << 20;
};

// Of bodies that clients send: a value takes tens of bytes of memory and some time.
inline constexpr JsonLimits kBodyJsonLimits{.depth_max = 64, .values_max = 4 << 20};

// Parses one document. Fails with kInvalidArgument on syntax errors, invalid UTF-8, duplicate keys,
// numbers beyond a double, and beyond the limits; the message names the path ("$.a[3]") and the
// byte offset.
Result<Json> parse_json(std::string_view text, const JsonLimits& limits = {});

// Appends `text` as a quoted JSON string.
void append_json_string(std::string& out, std::string_view text);
// Appends the shortest decimal that reads back as `value` ("null" if it is not finite).
void append_json_number(std::string& out, double value);

}  // namespace wideep
