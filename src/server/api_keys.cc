#include "server/api_keys.h"

#include "base/file.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <charconv>
#include <optional>
#include <span>

namespace wideep::server {
namespace {

constexpr int64_t kFileBytesMax = 1024 * 1024;
constexpr std::string_view kDigestPrefix = "sha256:";
constexpr std::string_view kBearer = "bearer ";

Digest digest_of(std::string_view key) {
  return sha256(std::as_bytes(std::span(key)));
}

std::optional<Digest> parse_digest(std::string_view hex) {
  Digest digest;
  if (hex.size() != digest.size() * 2) return std::nullopt;
  for (size_t i = 0; i < digest.size(); ++i) {
    const char* begin = hex.data() + i * 2;
    uint8_t byte = 0;
    const auto [end, code] = std::from_chars(begin, begin + 2, byte, 16);
    if (code != std::errc{} || end != begin + 2) return std::nullopt;
    digest[i] = std::byte{byte};
  }
  return digest;
}

bool starts_with_ignoring_case(std::string_view text, std::string_view lower_prefix) {
  if (text.size() < lower_prefix.size()) return false;
  for (size_t i = 0; i < lower_prefix.size(); ++i) {
    const char c = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] + 32) : text[i];
    if (c != lower_prefix[i]) return false;
  }
  return true;
}

}  // namespace

Result<ApiKeys> ApiKeys::load(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) {
    return error(ErrorCode::kNotFound, "API key file {} does not exist", path);
  }
  if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return invalid_argument("API key file {} can be read by others: chmod 600 it", path);
  }
  WD_ASSIGN_OR_RETURN(const std::string text, read_file(path, kFileBytesMax));
  auto keys = parse(text);
  if (!keys) return with_context(keys.error(), path);
  return keys;
}

Result<ApiKeys> ApiKeys::parse(std::string_view text) {
  ApiKeys keys;
  for (int line_number = 1; !text.empty(); ++line_number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    line = line.substr(0, line.find('#'));
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos) continue;
    line.remove_prefix(begin);
    const std::string_view key = line.substr(0, line.find_first_of(" \t\r"));
    if (!key.starts_with(kDigestPrefix)) {
      keys.add(key);
      continue;
    }
    const auto digest = parse_digest(key.substr(kDigestPrefix.size()));
    if (!digest) return invalid_argument("line {}: sha256: needs 64 hex digits", line_number);
    keys.digests_.push_back(*digest);
  }
  if (keys.empty()) return invalid_argument("there is no key");
  return keys;
}

void ApiKeys::add(std::string_view key) {
  digests_.push_back(digest_of(key));
}

bool ApiKeys::allows(std::string_view authorization) const {
  if (empty()) return true;
  if (!starts_with_ignoring_case(authorization, kBearer)) return false;
  const Digest digest = digest_of(authorization.substr(kBearer.size()));
  // All are compared, so that the time tells nothing about which one matched.
  bool allowed = false;
  for (const Digest& known : digests_)
    allowed |= equal_constant_time(known, digest);
  return allowed;
}

}  // namespace wideep::server
