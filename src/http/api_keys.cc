#include "http/api_keys.h"

#include "base/file.h"

#include <algorithm>
#include <span>
#include <sstream>

namespace wideep::http {
namespace {

constexpr int64_t kFileBytesMax = 4 << 20;
constexpr std::string_view kDigestPrefix = "sha256:";
constexpr std::string_view kBearer = "bearer ";

Digest digest_of(std::string_view key) {
  return sha256(std::as_bytes(std::span(key)));
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<Digest> parse_digest(std::string_view hex) {
  Digest digest;
  if (hex.size() != digest.size() * 2) return std::nullopt;
  for (size_t i = 0; i < digest.size(); ++i) {
    const int high = hex_value(hex[2 * i]);
    const int low = hex_value(hex[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    digest[i] = static_cast<std::byte>(high << 4 | low);
  }
  return digest;
}

}  // namespace

Result<ApiKeys> ApiKeys::load(const std::vector<std::string>& keys, const std::string& file) {
  ApiKeys result;
  for (const std::string& key : keys) {
    if (key.empty()) return invalid_argument("an API key must not be empty");
    result.keys_.push_back({fmt::format("key {}", result.keys_.size() + 1), digest_of(key)});
  }
  if (file.empty()) return result;
  WD_ASSIGN_OR_RETURN(const std::string text, read_secret(file, kFileBytesMax));
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string name;
    std::string key;
    std::string rest;
    if (!(words >> name)) continue;
    if (!(words >> key) || words >> rest)
      return invalid_argument("{}:{}: 'name key' is expected", file, number);
    const auto digest = key.starts_with(kDigestPrefix)
                            ? parse_digest(std::string_view(key).substr(kDigestPrefix.size()))
                            : std::optional(digest_of(key));
    if (!digest) return invalid_argument("{}:{}: sha256: takes 64 hex digits", file, number);
    if (result.keys_.size() >= kKeysMax)
      return invalid_argument("{}: more than {} keys", file, kKeysMax);
    result.keys_.push_back({name, *digest});
  }
  if (result.keys_.empty()) return invalid_argument("{}: no key in it", file);
  return result;
}

std::string ApiKeys::file_text() const {
  std::string text;
  for (const Key& key : keys_) {
    std::string name = key.name;
    std::ranges::replace(name, ' ', '-');
    text += fmt::format("{} {}{}\n", name, kDigestPrefix, to_hex(key.digest));
  }
  return text;
}

std::optional<std::string_view> ApiKeys::caller(const Headers& headers) const {
  if (keys_.empty()) return "";
  std::string_view key = headers.get("x-api-key");
  const std::string_view authorization = headers.get("authorization");
  if (authorization.size() > kBearer.size() &&
      equal_ignoring_case(authorization.substr(0, kBearer.size()), kBearer)) {
    key = authorization.substr(kBearer.size());
  }
  const Digest digest = digest_of(key);
  std::optional<std::string_view> found;
  for (const Key& known : keys_) {  // all of them, so that the time says nothing
    if (equal_constant_time(digest, known.digest) && !key.empty()) found = known.name;
  }
  return found;
}

}  // namespace wideep::http
