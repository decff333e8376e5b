#include "net/address.h"

#include <charconv>

namespace wideep::net {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";
constexpr size_t kUnixPathBytesMax = 107;  // sockaddr_un, with room for the final zero

Result<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (code != std::errc{} || end != text.data() + text.size() || text.empty()) {
    return invalid_argument("'{}' is no port number", text.substr(0, 16));
  }
  return port;
}

}  // namespace

std::string Address::to_string() const {
  if (is_unix()) return std::string(kUnixPrefix) + path;
  const bool is_v6 = host.find(':') != std::string::npos;
  return (is_v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<Address> parse_address(std::string_view text) {
  if (text.starts_with(kUnixPrefix)) {
    const std::string_view path = text.substr(kUnixPrefix.size());
    if (path.empty() || path.size() > kUnixPathBytesMax) {
      return invalid_argument("the path of a Unix socket has 1 to {} bytes, not {}",
                              kUnixPathBytesMax, path.size());
    }
    return Address::unix_socket(std::string(path));
  }
  std::string_view host;
  std::string_view rest;
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) {
      return invalid_argument("'{}' has no ']'", text.substr(0, 64));
    }
    host = text.substr(1, close - 1);
    rest = text.substr(close + 1);
  } else {
    const size_t colon = text.find(':');
    host = text.substr(0, colon);
    rest = colon == std::string_view::npos ? std::string_view() : text.substr(colon);
  }
  if (host.empty() || !rest.starts_with(':')) {
    return invalid_argument("'{}' is not HOST:PORT or unix:PATH", text.substr(0, 64));
  }
  WD_ASSIGN_OR_RETURN(const uint16_t port, parse_port(rest.substr(1)));
  return Address{.host = std::string(host), .port = port, .path = {}};
}

bool is_loopback(const Address& address) {
  return address.is_unix() || address.host == "localhost" || address.host == "::1" ||
         address.host.starts_with("127.");
}

}  // namespace wideep::net
