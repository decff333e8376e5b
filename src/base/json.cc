#include "base/json.h"

#include "base/check.h"
#include "base/utf8.h"

// Strings are scanned 16 bytes at a time.
#ifdef __SSE2__
#define RAPIDJSON_SSE2
#endif
#include <rapidjson/error/en.h>
#include <rapidjson/reader.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string>
#include <unordered_set>

namespace wideep {
namespace {

constexpr size_t kPathBytesMax = 200;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr size_t kScanBytes = 16;
// The reader's buffer for the string it reads begins with that at most; it grows when it must.
constexpr size_t kStackBytesMax = 64 * 1024;

// Builds the tree from the parser's events. Stops the parser by returning false with `problem` set.
class TreeBuilder {
 public:
  explicit TreeBuilder(const JsonLimits& limits) : limits_(limits) {}

  // NOLINTBEGIN(readability-identifier-naming): the library's names
  bool Null() { return add(Json()); }

  bool Bool(bool value) { return add(Json(value)); }

  // Numbers come as text whose form has been checked. The library's own conversion shifts out of
  // range on some of them ("0e38"), the standard's is exact.
  bool RawNumber(const char* text, rapidjson::SizeType length, bool) {
    const char* end = text + length;
    int64_t integer = 0;
    if (const auto read = std::from_chars(text, end, integer);
        read.ec == std::errc{} && read.ptr == end) {
      return add(Json(integer));
    }
    double value = 0;
    if (std::from_chars(text, end, value).ec == std::errc{}) return add(Json(value));
    return is_tiny({text, length}) ? add(Json(0.0)) : fail("a number beyond a double");
  }

  // With numbers as text the library never calls these.
  bool Int(int) { return false; }

  bool Uint(unsigned) { return false; }

  bool Int64(int64_t) { return false; }

  bool Uint64(uint64_t) { return false; }

  bool Double(double) { return false; }

  bool String(const char* text, rapidjson::SizeType length, bool) {
    if (has_surrogate({text, length})) return fail(kLoneSurrogate);
    return add(Json(std::string(text, length)));
  }

  bool StartObject() { return open(Json(Json::Object{})); }

  bool Key(const char* text, rapidjson::SizeType length, bool) {
    if (has_surrogate({text, length})) return fail(kLoneSurrogate);
    stack_.back().key.assign(text, length);
    return true;
  }

  bool EndObject(rapidjson::SizeType) {
    if (!keys_are_unique(*stack_.back().value.as_object())) return false;
    return close();
  }

  bool StartArray() { return open(Json(Json::Array{})); }

  bool EndArray(rapidjson::SizeType) { return close(); }

  // NOLINTEND(readability-identifier-naming)

  Json take_root() { return std::move(root_); }

  const std::string& problem() const { return problem_; }

  // "$.weights[3].name" of the value being read. Shortened in the middle of deep nesting.
  std::string path() const {
    std::string path = "$";
    for (const Frame& frame : stack_) {
      if (path.size() > kPathBytesMax) return path + "...";
      if (const Json::Array* array = frame.value.as_array()) {
        path += fmt::format("[{}]", array->size());
      } else if (!frame.key.empty()) {
        path += "." + frame.key.substr(0, kPathBytesMax);
      }
    }
    return path;
  }

 private:
  struct Frame {
    Json value;
    std::string key;  // the member being read, for objects
  };

  static constexpr const char* kLoneSurrogate =
      "half of a surrogate pair (\\uDC00 to \\uDFFF alone)";

  // The library refuses the first half of a pair without the second, but encodes a second half
  // alone, in three bytes that are no UTF-8. The input is known to be UTF-8, so they come from
  // there.
  static bool has_surrogate(std::string_view text) {
    for (size_t at = text.find('\xED'); at != std::string_view::npos;
         at = text.find('\xED', at + 1)) {
      if (static_cast<unsigned char>(text[at + 1]) >= 0xA0) return true;
    }
    return false;
  }

  // Of a number that is out of a double's range: whether it is too near to zero.
  static bool is_tiny(std::string_view number) {
    const size_t exponent = number.find_first_of("eE");
    if (exponent != std::string_view::npos) return number.substr(exponent + 1).starts_with('-');
    return number.starts_with("0.") || number.starts_with("-0.");
  }

  bool fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  bool add(Json value) {
    if (++num_values_ > limits_.values_max) {
      return fail(fmt::format("more than {} values", limits_.values_max));
    }
    if (stack_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Frame& top = stack_.back();
    if (Json::Array* array = top.value.as_array()) {
      array->push_back(std::move(value));
    } else {
      top.value.as_object()->emplace_back(std::move(top.key), std::move(value));
      top.key.clear();
    }
    return true;
  }

  bool open(Json container) {
    if (static_cast<int>(stack_.size()) >= limits_.depth_max) {
      return fail(fmt::format("nested deeper than {}", limits_.depth_max));
    }
    stack_.push_back({std::move(container), {}});
    return true;
  }

  bool close() {
    Json value = std::move(stack_.back().value);
    stack_.pop_back();
    return add(std::move(value));
  }

  bool keys_are_unique(const Json::Object& object) {
    constexpr size_t kSmall = 12;  // up to here comparing all is cheaper than hashing all
    std::unordered_set<std::string_view> seen;
    for (auto member = object.begin(); member != object.end(); ++member) {
      const std::string& key = member->first;
      const bool is_new =
          object.size() <= kSmall
              ? std::ranges::find(object.begin(), member, key, &Json::Member::first) == member
              : seen.insert(key).second;
      if (!is_new) return fail(fmt::format("key '{}' appears twice", key.substr(0, kPathBytesMax)));
    }
    return true;
  }

  JsonLimits limits_;
  std::vector<Frame> stack_;
  Json root_;
  int64_t num_values_ = 0;
  std::string problem_;
};

}  // namespace

std::optional<bool> Json::as_bool() const {
  const bool* value = std::get_if<bool>(&value_);
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<int64_t> Json::as_int() const {
  const int64_t* value = std::get_if<int64_t>(&value_);
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<double> Json::as_double() const {
  if (auto integer = as_int()) return static_cast<double>(*integer);
  const double* value = std::get_if<double>(&value_);
  return value ? std::optional(*value) : std::nullopt;
}

const Json* Json::find(std::string_view key) const {
  const Object* object = as_object();
  if (object == nullptr) return nullptr;
  auto it = std::ranges::find(*object, key, &Member::first);
  return it == object->end() ? nullptr : &it->second;
}

Json* Json::find(std::string_view key) {
  return const_cast<Json*>(static_cast<const Json*>(this)->find(key));
}

Json& Json::set(std::string_view key, Json value) {
  if (is_null()) value_ = Object{};
  Object* object = as_object();
  WD_CHECK(object != nullptr);
  if (Json* existing = find(key)) {
    *existing = std::move(value);
  } else {
    object->emplace_back(std::string(key), std::move(value));
  }
  return *this;
}

void Json::erase(std::string_view key) {
  if (Object* object = as_object()) {
    std::erase_if(*object, [&](const Member& member) { return member.first == key; });
  }
}

Json& Json::append(Json value) {
  if (is_null()) value_ = Array{};
  Array* array = as_array();
  WD_CHECK(array != nullptr);
  array->push_back(std::move(value));
  return *this;
}

std::string Json::dump() const {
  std::string out;
  dump_to(out);
  return out;
}

void Json::dump_to(std::string& out) const {
  switch (kind()) {
    case Kind::kNull:
      out += "null";
      break;
    case Kind::kBool:
      out += *as_bool() ? "true" : "false";
      break;
    case Kind::kInt:
      out += std::to_string(*as_int());
      break;
    case Kind::kDouble:
      append_json_number(out, std::get<double>(value_));
      break;
    case Kind::kString:
      append_json_string(out, *as_string());
      break;
    case Kind::kArray: {
      char separator = '[';
      for (const Json& item : *as_array()) {
        out += separator;
        item.dump_to(out);
        separator = ',';
      }
      out += separator == '[' ? "[]" : "]";
      break;
    }
    case Kind::kObject: {
      char separator = '{';
      for (const auto& [key, value] : *as_object()) {
        out += separator;
        append_json_string(out, key);
        out += ':';
        value.dump_to(out);
        separator = ',';
      }
      out += separator == '{' ? "{}" : "}";
      break;
    }
  }
}

std::string_view name(Json::Kind kind) {
  static constexpr std::array<std::string_view, 7> kNames = {
      "null", "boolean", "integer", "number", "string", "array", "object"};
  return kNames[static_cast<size_t>(kind)];
}

Result<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  // The encoding is checked first, for the whole text, several bytes at a time.
  constexpr unsigned kFlags =
      rapidjson::kParseIterativeFlag | rapidjson::kParseNumbersAsStringsFlag;
  if (!is_valid_utf8(text)) return invalid_argument("invalid JSON: not valid UTF-8");
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  // The library's fast scanner wants its text to end with a NUL, and looks 16 bytes at a time past
  // it. So no other NUL may stand before.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return invalid_argument("invalid JSON (byte {}): a NUL", nul);
  }
  std::string padded;
  padded.reserve(text.size() + kScanBytes);
  padded.append(text).append(kScanBytes, '\0');
  rapidjson::StringStream stream(padded.data());
  TreeBuilder builder(limits);
  rapidjson::Reader reader(nullptr, std::min(text.size() + kScanBytes, kStackBytesMax));
  const rapidjson::ParseResult result = reader.Parse<kFlags>(stream, builder);
  if (result) return builder.take_root();
  const std::string what = builder.problem().empty()
                               ? std::string(rapidjson::GetParseError_En(result.Code()))
                               : builder.problem();
  return invalid_argument("invalid JSON at {} (byte {}): {}", builder.path(), result.Offset(),
                          what);
}

void append_json_string(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80) {
      switch (byte) {
        case '"':
          out += "\\\"";
          break;
        case '\\':
          out += "\\\\";
          break;
        case '\n':
          out += "\\n";
          break;
        case '\r':
          out += "\\r";
          break;
        case '\t':
          out += "\\t";
          break;
        case '\b':
          out += "\\b";
          break;
        case '\f':
          out += "\\f";
          break;
        default:
          if (byte < 0x20 || byte == 0x7F) {
            out += "\\u00";
            out += kHex[byte >> 4];
            out += kHex[byte & 15];
          } else {
            out += static_cast<char>(byte);
          }
      }
      ++i;
      continue;
    }
    const int length = utf8_sequence_length(text.substr(i));
    if (length > 0) {
      out += text.substr(i, static_cast<size_t>(length));
      i += static_cast<size_t>(length);
    } else {
      out += "\xEF\xBF\xBD";
      ++i;
    }
  }
  out += '"';
}

void append_json_number(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  std::array<char, 32> digits;
  const auto [end, code] = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  const std::string_view shortest(digits.data(), static_cast<size_t>(end - digits.data()));
  out += shortest;
  if (shortest.find_first_of(".e") == std::string_view::npos) out += ".0";
}

}  // namespace wideep
