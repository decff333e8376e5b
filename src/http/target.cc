#include "http/target.h"

#include <algorithm>

namespace wideep::http {
namespace {

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// "http://host:80/x" becomes "/x".
Result<std::string_view> without_authority(std::string_view target) {
  if (target.starts_with('/')) return target;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!target.starts_with(scheme)) continue;
    const size_t end = target.find_first_of("/?", scheme.size());
    if (end == scheme.size() || target.size() == scheme.size()) {
      return invalid_argument("the target has no host");
    }
    if (end == std::string_view::npos) return std::string_view("/");
    if (target[end] == '?') return invalid_argument("the target has a query but no path");
    return target.substr(end);
  }
  return invalid_argument("the target is neither a path nor an http URL");
}

Result<std::string> decode(std::string_view path) {
  std::string decoded;
  decoded.reserve(path.size());
  for (size_t i = 0; i < path.size(); ++i) {
    char c = path[i];
    if (c == '%') {
      const int high = i + 2 < path.size() ? hex_value(path[i + 1]) : -1;
      const int low = i + 2 < path.size() ? hex_value(path[i + 2]) : -1;
      if (high < 0 || low < 0) return invalid_argument("the path has a bad % escape");
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F || c == '#' || c == '\\') {
      return invalid_argument("the path has a character that is not allowed");
    }
    decoded += c;
  }
  return decoded;
}

}  // namespace

Result<Target> normalise_target(std::string_view target) {
  WD_ASSIGN_OR_RETURN(const std::string_view local, without_authority(target));
  const size_t question = local.find('?');
  Target result;
  if (question != std::string_view::npos) result.query = local.substr(question + 1);
  if (result.query.find('#') != std::string::npos) {
    return invalid_argument("the target has a fragment");
  }
  WD_ASSIGN_OR_RETURN(const std::string path, decode(local.substr(0, question)));

  result.path.reserve(path.size() + 1);
  bool ends_in_folder = false;
  for (size_t start = 1; start <= path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    const std::string_view segment = std::string_view(path).substr(start, end - start);
    ends_in_folder = segment.empty() || segment == "." || segment == "..";
    if (segment == "..") {
      if (result.path.empty()) return invalid_argument("the path climbs above the root");
      result.path.erase(result.path.rfind('/'));
    } else if (!ends_in_folder) {
      result.path.append("/").append(segment);
    }
    start = end + 1;
  }
  if (result.path.empty() || ends_in_folder) result.path += '/';
  return result;
}

std::string encode_path(std::string_view path) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  static constexpr std::string_view kPlain = "/-._~!$&'()*+,;=:@";
  std::string out;
  for (const char c : path) {
    const bool is_alphanumeric =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (is_alphanumeric || kPlain.find(c) != std::string_view::npos) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

}  // namespace wideep::http
