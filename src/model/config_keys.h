// Reads values out of a JSON object with every key checked for presence, type and range. The first
// problem is kept and everything read after it is a harmless default, so that a reader is one list
// of assignments followed by one look at status().
#pragma once

#include "base/json.h"
#include "base/result.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::model {

struct IntRange {
  int64_t min = 0;
  int64_t max = 0;
};

struct DoubleRange {
  double min = 0;
  double max = 0;
};

class ConfigKeys {
 public:
  // Borrows `object`, which must be one (checked). `prefix` names it in messages: "rope_scaling.".
  explicit ConfigKeys(const Json& object, std::string prefix = "");

  // Present and not null.
  bool has(std::string_view key) const;
  int64_t integer(std::string_view key, IntRange range);
  int64_t integer_or(std::string_view key, int64_t fallback, IntRange range);
  double number(std::string_view key, DoubleRange range);
  double number_or(std::string_view key, double fallback, DoubleRange range);
  bool boolean_or(std::string_view key, bool fallback);
  std::string string(std::string_view key);
  std::string string_or(std::string_view key, std::string_view fallback);
  // A list of integers, one integer, or nothing.
  std::vector<int64_t> integers(std::string_view key, IntRange range);
  // An object; nullptr if absent or null.
  const Json* object(std::string_view key);

  // Records a problem with `key` unless there is one already.
  void fail(std::string_view key, std::string_view problem);
  // Takes over the problem of an inner object.
  void adopt(const Status& inner);

  const Status& status() const { return status_; }

 private:
  const Json* find(std::string_view key) const;
  int64_t checked(std::string_view key, const Json& value, IntRange range);

  const Json& object_;
  std::string prefix_;
  Status status_;
};

}  // namespace wideep::model
