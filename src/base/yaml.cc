#include "base/yaml.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <string>

namespace wideep {
namespace {

constexpr int kDepthMax = 32;

Json plain_scalar(const std::string& text) {
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return {};
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  const char* begin = text.data() + (text.front() == '+' ? 1 : 0);
  const char* end = text.data() + text.size();
  int64_t integer = 0;
  if (const auto read = std::from_chars(begin, end, integer);
      read.ec == std::errc{} && read.ptr == end) {
    return integer;
  }
  double number = 0;
  const bool looks_numeric = text.find_first_of("0123456789") != std::string::npos &&
                             text.find_first_not_of("+-.0123456789eE") == std::string::npos;
  if (const auto read = std::from_chars(begin, end, number);
      looks_numeric && read.ec == std::errc{} && read.ptr == end) {
    return number;
  }
  return text;
}

class Converter {
 public:
  explicit Converter(YamlLines* lines) : lines_(lines) {}

  // Fails when the document is too deep, too large once aliases are followed, or has keys that are
  // not text.
  Result<Json> convert(const YAML::Node& node, int depth, const std::string& path) {
    if (depth > kDepthMax) return invalid_argument("nested deeper than {}", kDepthMax);
    if (++num_values_ > kYamlValuesMax)
      return invalid_argument("more than {} values", kYamlValuesMax);
    switch (node.Type()) {
      case YAML::NodeType::Scalar:
        return node.Tag() == "!" ? Json(node.Scalar()) : plain_scalar(node.Scalar());
      case YAML::NodeType::Sequence:
        return sequence(node, depth, path);
      case YAML::NodeType::Map:
        return map(node, depth, path);
      default:
        return Json();
    }
  }

 private:
  Result<Json> sequence(const YAML::Node& node, int depth, const std::string& path) {
    Json::Array items;
    for (const YAML::Node& item : node) {
      const std::string item_path =
          lines_ == nullptr ? "" : fmt::format("{}[{}]", path, items.size());
      note_line(item_path, item);
      WD_ASSIGN_OR_RETURN(Json value, convert(item, depth + 1, item_path));
      items.push_back(std::move(value));
    }
    return Json(std::move(items));
  }

  Result<Json> map(const YAML::Node& node, int depth, const std::string& path) {
    Json result{Json::Object{}};
    for (const auto& member : node) {
      if (!member.first.IsScalar()) {
        return invalid_argument("line {}: a key must be text", member.first.Mark().line + 1);
      }
      const std::string& key = member.first.Scalar();
      if (result.find(key) != nullptr) {
        return invalid_argument("line {}: key '{}' appears twice", member.first.Mark().line + 1,
                                key);
      }
      std::string member_path;
      if (lines_ != nullptr) member_path = path.empty() ? key : path + "." + key;
      note_line(member_path, member.first);
      WD_ASSIGN_OR_RETURN(Json value, convert(member.second, depth + 1, member_path));
      result.set(key, std::move(value));
    }
    return result;
  }

  void note_line(const std::string& path, const YAML::Node& node) {
    if (lines_ != nullptr) (*lines_)[path] = node.Mark().line + 1;
  }

  YamlLines* lines_;
  int64_t num_values_ = 0;
};

}  // namespace

Result<Json> parse_yaml(std::string_view text, YamlLines* lines) {
  if (static_cast<int64_t>(text.size()) > kYamlBytesMax) {
    return invalid_argument("YAML of {} bytes, at most {} allowed", text.size(), kYamlBytesMax);
  }
  try {
    return Converter(lines).convert(YAML::Load(std::string(text)), 0, "");
  } catch (const YAML::Exception& exception) {
    return invalid_argument("invalid YAML: {}", exception.what());
  }
}

}  // namespace wideep
