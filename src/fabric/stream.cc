#include "fabric/stream.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

namespace wideep::fabric {
namespace {

constexpr std::chrono::milliseconds kRetry{20};

std::unexpected<Error> failed(std::string_view what) {
  return error(ErrorCode::kUnavailable, "{}: {}", what, std::strerror(errno));
}

bool would_block() {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

class PlainStream final : public Stream {
 public:
  explicit PlainStream(UniqueFd socket) : socket_(std::move(socket)) {}

  int fd() const override { return socket_.get(); }

  Result<size_t> read(std::span<std::byte> bytes) override {
    const ssize_t count = recv(fd(), bytes.data(), bytes.size(), 0);
    if (count > 0) return static_cast<size_t>(count);
    if (count == 0) return error(ErrorCode::kUnavailable, "connection closed");
    if (would_block()) return 0;
    return failed("read");
  }

  Result<size_t> write(std::span<const std::byte> bytes) override {
    const ssize_t count = send(fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count >= 0) return static_cast<size_t>(count);
    if (would_block()) return 0;
    return failed("write");
  }

 private:
  UniqueFd socket_;
};

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Result<Addresses> resolve(const net::Address& address, int flags) {
  const addrinfo hints{.ai_flags = flags, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  const int failure =
      getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (failure != 0)
    return error(ErrorCode::kUnavailable, "{}: {}", address.to_string(), gai_strerror(failure));
  return Addresses(found, &freeaddrinfo);
}

UniqueFd tcp_socket(const addrinfo& info) {
  return UniqueFd(socket(info.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

// True once the descriptor is ready, false at the deadline.
bool await(int fd, short events, TimePoint deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - real_clock().now());
    if (left.count() <= 0) return false;
    pollfd poll_fd{.fd = fd, .events = events, .revents = 0};
    if (poll(&poll_fd, 1, static_cast<int>(std::min<int64_t>(left.count(), 1000))) > 0) return true;
  }
}

Status connect_one(int socket, const addrinfo& info, TimePoint deadline) {
  if (connect(socket, info.ai_addr, info.ai_addrlen) == 0) return {};
  if (errno != EINPROGRESS) return failed("connect");
  if (!await(socket, POLLOUT, deadline)) return error(ErrorCode::kTimeout, "connect: no answer");
  int outcome = 0;
  socklen_t length = sizeof outcome;
  getsockopt(socket, SOL_SOCKET, SO_ERROR, &outcome, &length);
  errno = outcome;
  if (outcome != 0) return failed("connect");
  return {};
}

void set(int socket, int level, int name, int value) {
  setsockopt(socket, level, name, &value, sizeof value);
}

}  // namespace

std::unique_ptr<Stream> plain_stream(UniqueFd socket) {
  return std::make_unique<PlainStream>(std::move(socket));
}

Status prepare_socket(int socket, const TcpOptions& options) {
  if (fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_NONBLOCK) != 0) return failed("socket");
  const auto silence =
      std::chrono::duration_cast<std::chrono::milliseconds>(options.silence_max).count();
  set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(socket, IPPROTO_TCP, TCP_KEEPIDLE, 1);
  set(socket, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set(socket, IPPROTO_TCP, TCP_KEEPCNT, static_cast<int>(std::max<int64_t>(silence / 1000, 1)));
  set(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(silence));
  return {};
}

Result<UniqueFd> listen_tcp(const net::Address& address) {
  WD_ASSIGN_OR_RETURN(const Addresses found, resolve(address, AI_PASSIVE));
  UniqueFd listener = tcp_socket(*found);
  if (!listener) return failed("socket");
  set(listener.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (bind(listener.get(), found->ai_addr, found->ai_addrlen) != 0 ||
      listen(listener.get(), SOMAXCONN) != 0)
    return failed(fmt::format("listen at {}", address.to_string()));
  return listener;
}

Result<net::Address> local_address(int listener, const net::Address& asked) {
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  if (getsockname(listener, reinterpret_cast<sockaddr*>(&name), &length) != 0)
    return failed("address");
  net::Address address = asked;
  address.port =
      ntohs(name.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&name)->sin6_port
                                       : reinterpret_cast<const sockaddr_in*>(&name)->sin_port);
  return address;
}

Result<UniqueFd> connect_tcp(const net::Address& address, TimePoint deadline) {
  for (;;) {
    WD_ASSIGN_OR_RETURN(const Addresses found, resolve(address, 0));
    Status outcome;
    for (const addrinfo* info = found.get(); info != nullptr; info = info->ai_next) {
      UniqueFd socket = tcp_socket(*info);
      if (!socket) return failed("socket");
      outcome = connect_one(socket.get(), *info, deadline);
      if (outcome) return socket;
    }
    if (real_clock().now() + kRetry >= deadline)
      return error(ErrorCode::kTimeout, "{}: {}", address.to_string(), outcome.error().message);
    poll(nullptr, 0, static_cast<int>(kRetry.count()));  // it has not started yet
  }
}

Result<UniqueFd> accept_tcp(int listener, TimePoint deadline) {
  for (;;) {
    if (!await(listener, POLLIN, deadline)) return error(ErrorCode::kTimeout, "nobody called");
    UniqueFd socket(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket) return socket;
    if (!would_block() && errno != ECONNABORTED) return failed("accept");
  }
}

Status read_all(Stream& stream, std::span<std::byte> bytes, TimePoint deadline) {
  while (!bytes.empty()) {
    WD_ASSIGN_OR_RETURN(const size_t count, stream.read(bytes));
    bytes = bytes.subspan(count);
    if (count == 0 && !await(stream.fd(), POLLIN, deadline))
      return error(ErrorCode::kTimeout, "read: {} bytes did not come", bytes.size());
  }
  return {};
}

Status write_all(Stream& stream, std::span<const std::byte> bytes, TimePoint deadline) {
  while (!bytes.empty()) {
    WD_ASSIGN_OR_RETURN(const size_t count, stream.write(bytes));
    bytes = bytes.subspan(count);
    if (count == 0 && !await(stream.fd(), POLLOUT, deadline))
      return error(ErrorCode::kTimeout, "write: {} bytes were not taken", bytes.size());
  }
  return {};
}

}  // namespace wideep::fabric
