#include "net/held_ports.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace wideep::net {

HeldPorts::~HeldPorts() {
  for (const int descriptor : descriptors_)
    close(descriptor);
}

Result<Address> HeldPorts::hold(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string numeric = host == "localhost" ? "127.0.0.1" : host;  // as net::listen has it
  const int code = getaddrinfo(numeric.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (code != 0) {
    return error(ErrorCode::kUnavailable, "{}: {}", host, gai_strerror(code));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> guard(found, &freeaddrinfo);
  const int descriptor = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  if (descriptor < 0 || setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      bind(descriptor, found->ai_addr, found->ai_addrlen) != 0 ||
      getsockname(descriptor, reinterpret_cast<sockaddr*>(&name), &length) != 0) {
    const int number = errno;
    if (descriptor >= 0) close(descriptor);
    return error(ErrorCode::kUnavailable, "{}: {}", Address{host, port, {}}.to_string(),
                 strerrordesc_np(number));
  }
  descriptors_.push_back(descriptor);
  const uint16_t bound = name.ss_family == AF_INET6
                             ? reinterpret_cast<const sockaddr_in6*>(&name)->sin6_port
                             : reinterpret_cast<const sockaddr_in*>(&name)->sin_port;
  return Address{.host = host, .port = ntohs(bound), .path = {}};
}

}  // namespace wideep::net
