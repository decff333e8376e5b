// Where to listen or connect: host and port, or the path of a Unix-domain socket.
#pragma once

#include "base/result.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace wideep::net {

struct Address {
  std::string host;   // name or number, without brackets
  uint16_t port = 0;  // 0 when listening: the kernel chooses
  std::string path;   // not empty: a Unix-domain socket, and host and port mean nothing

  static Address unix_socket(const std::string& path) { return {{}, 0, path}; }

  bool is_unix() const { return !path.empty(); }

  bool operator==(const Address&) const = default;

  // "10.0.0.7:80", "[::1]:80" or "unix:/run/x.sock": what parse_address reads.
  std::string to_string() const;
};

// kInvalidArgument on anything but the forms above; the host must not be empty.
Result<Address> parse_address(std::string_view text);

// Whether connections can only come from this host: a Unix socket, 127.0.0.0/8, ::1, localhost.
bool is_loopback(const Address& address);

struct ListenOptions {
  int backlog = 1024;
  bool reuse_port = false;    // several loops listen on one port
  uint32_t unix_mode = 0600;  // permission bits of a new Unix socket
};

}  // namespace wideep::net
