// Reads the fields of a request by name, type and range. The first thing that is wrong is kept;
// finish() gives it, or names the first field that nobody asked for.
#pragma once

#include "api/error.h"
#include "base/ids.h"
#include "base/json.h"

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace wideep::api {

template <typename T>
struct Range {
  T min = std::numeric_limits<T>::lowest();
  T max = std::numeric_limits<T>::max();
};

// Null is the same as absent, everywhere: the target keeps its value. Thread: one at a time.
class FieldReader {
 public:
  // `body` must outlive the reader. Anything but an object is the first thing wrong. `prefix` comes
  // before names in errors: "stream_options.".
  explicit FieldReader(const Json& body, std::string prefix = "");

  // The value, and the field counts as known; nullptr if absent or null.
  const Json* take(std::string_view name);

  void read(std::string_view name, bool& target);
  void read(std::string_view name, std::string& target, size_t bytes_max);
  void read(std::string_view name, int64_t& target, Range<int64_t> range);
  void read(std::string_view name, std::optional<int64_t>& target, Range<int64_t> range);
  void read(std::string_view name, double& target, Range<double> range);
  void read(std::string_view name, std::optional<double>& target, Range<double> range);
  void read(std::string_view name, std::vector<TokenId>& target, Range<size_t> num_items);

  // Known to clients, not implemented here: refused unless absent.
  void refuse(std::string_view name, std::string_view reason);
  // As refuse(), but the value `harmless` asks for what happens anyway.
  void refuse_unless(std::string_view name, const Json& harmless, std::string_view reason);
  // Carries nothing that changes the answer: accepted whatever it is.
  void ignore(std::string_view name);

  void fail(ApiError error);
  void fail(std::string_view name, std::string message);

  bool failed() const { return error_.has_value(); }

  std::optional<ApiError> finish();

 private:
  void wrong_type(std::string_view name, std::string_view wanted, const Json& value);
  std::optional<int64_t> integer(std::string_view name, Range<int64_t> range);
  std::optional<double> number(std::string_view name, Range<double> range);

  const Json& body_;
  std::string prefix_;
  std::unordered_map<std::string_view, const Json*> unread_;
  std::optional<ApiError> error_;
};

// A token id: an integer in [0, 2^31).
std::optional<TokenId> token_id_of(const Json& value);

}  // namespace wideep::api
