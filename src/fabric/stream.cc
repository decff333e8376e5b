#include "fabric/stream.h"

#include "base/log.h"
#include "net/lookup.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

namespace wideep::fabric {
namespace {

constexpr std::chrono::milliseconds kRetry{20};
constexpr std::chrono::milliseconds kRetryName{200};
constexpr std::chrono::milliseconds kNoDescriptors{100};

std::unexpected<Error> failed(std::string_view what) {
  return error(ErrorCode::kUnavailable, "{}: {}", what, strerrordesc_np(errno));
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

using SocketName = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

// Of a host that is a number; nobody is asked.
Result<SocketName> name_of(const std::string& host, uint16_t port) {
  const addrinfo hints{.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  const int failure = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (failure != 0) return error(ErrorCode::kUnavailable, "{}: {}", host, gai_strerror(failure));
  return SocketName(found, &freeaddrinfo);
}

// A name that is not known yet is asked for within the limit: whoever publishes it may still be
// starting.
net::HostAddresses await_name(const std::string& host, const WaitLimit& limit) {
  net::HostAddresses found = net::look_up(host, limit.deadline());
  if (!found) log_info("{}; trying again", found.error().message);
  while (!found && found.error().code != ErrorCode::kTimeout && !limit.has_passed()) {
    limit.pause(kRetryName);
    found = net::look_up(host, limit.deadline());
  }
  return found;
}

UniqueFd tcp_socket(const addrinfo& info) {
  return UniqueFd(socket(info.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

Status connect_one(int socket, const addrinfo& info, const WaitLimit& limit) {
  if (connect(socket, info.ai_addr, info.ai_addrlen) == 0) return {};
  if (errno != EINPROGRESS) return failed("connect");
  if (!limit.await(socket, POLLOUT)) return error(ErrorCode::kTimeout, "connect: no answer");
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

UniqueFd unix_socket() {
  return UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

Result<sockaddr_un> unix_name(const std::string& path) {
  sockaddr_un name{.sun_family = AF_UNIX, .sun_path = {}};
  if (path.size() >= sizeof name.sun_path)
    return invalid_argument("unix:{}: the path of a socket has at most {} bytes", path,
                            sizeof name.sun_path - 1);
  std::ranges::copy(path, name.sun_path);
  return name;
}

// What a process that was killed has left at the path is in nobody's way.
Result<UniqueFd> listen_unix(const net::Address& address) {
  WD_ASSIGN_OR_RETURN(const sockaddr_un name, unix_name(address.path));
  UniqueFd listener = unix_socket();
  if (!listener) return failed("socket");
  unlink(address.path.c_str());
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 ||
      listen(listener.get(), SOMAXCONN) != 0)
    return failed(fmt::format("listen at {}", address.to_string()));
  return listener;
}

// One attempt. A full queue of the listener is a failure like any other: the caller tries again.
Result<UniqueFd> connect_unix(const net::Address& address) {
  WD_ASSIGN_OR_RETURN(const sockaddr_un name, unix_name(address.path));
  UniqueFd socket = unix_socket();
  if (!socket) return failed("socket");
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0)
    return failed("connect");
  return socket;
}

// One attempt at each address that the host's name stands for. A name that is not known yet is
// tried again too: the service that publishes it may still be starting.
Result<UniqueFd> connect_tcp(const net::Address& address, const WaitLimit& limit) {
  WD_ASSIGN_OR_RETURN(const auto hosts, net::look_up(address.host, limit.deadline()));
  Status outcome = error(ErrorCode::kUnavailable, "no address");
  for (const std::string& host : hosts) {
    WD_ASSIGN_OR_RETURN(const SocketName name, name_of(host, address.port));
    UniqueFd socket = tcp_socket(*name);
    if (!socket) return failed("socket");
    outcome = connect_one(socket.get(), *name, limit);
    if (outcome) return socket;
  }
  return std::unexpected(outcome.error());
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

Result<UniqueFd> listen_at(const net::Address& address, Duration name_patience) {
  if (address.is_unix()) return listen_unix(address);
  WD_ASSIGN_OR_RETURN(const auto hosts,
                      await_name(address.host, real_clock().now() + name_patience));
  WD_ASSIGN_OR_RETURN(const SocketName name, name_of(hosts.front(), address.port));
  UniqueFd listener = tcp_socket(*name);
  if (!listener) return failed("socket");
  set(listener.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (bind(listener.get(), name->ai_addr, name->ai_addrlen) != 0 ||
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

Result<std::string> host_towards(const net::Address& peer, const WaitLimit& limit) {
  if (net::is_loopback(peer)) return peer.is_unix() ? "127.0.0.1" : peer.host;
  WD_ASSIGN_OR_RETURN(const auto hosts, await_name(peer.host, limit));
  WD_ASSIGN_OR_RETURN(const SocketName found, name_of(hosts.front(), peer.port));
  const addrinfo& info = *found;
  const UniqueFd probe(socket(info.ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  std::array<char, NI_MAXHOST> host{};
  if (!probe || connect(probe.get(), info.ai_addr, info.ai_addrlen) != 0 ||
      getsockname(probe.get(), reinterpret_cast<sockaddr*>(&name), &length) != 0)
    return failed(fmt::format("the way to {}", peer.to_string()));
  const int failure = getnameinfo(reinterpret_cast<const sockaddr*>(&name), length, host.data(),
                                  host.size(), nullptr, 0, NI_NUMERICHOST);
  if (failure != 0)
    return error(ErrorCode::kUnavailable, "the way to {}: {}", peer.to_string(),
                 gai_strerror(failure));
  return std::string(host.data());
}

Result<UniqueFd> connect_to(const net::Address& address, const WaitLimit& limit) {
  for (;;) {
    Result<UniqueFd> socket =
        address.is_unix() ? connect_unix(address) : connect_tcp(address, limit);
    if (socket || socket.error().code == ErrorCode::kInvalidArgument) return socket;
    if (limit.has_passed())
      return error(ErrorCode::kTimeout, "{}: {}", address.to_string(), socket.error().message);
    limit.pause(kRetry);  // it has not started yet
  }
}

Result<std::optional<UniqueFd>> accept_waiting(int listener) {
  for (;;) {
    UniqueFd socket(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket) return socket;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return std::nullopt;
    if (errno != EINTR && errno != ECONNABORTED)
      return error(ErrorCode::kExhausted, "accept: {}", strerrordesc_np(errno));
  }
}

std::optional<UniqueFd> accept_patiently(int listener, int interrupt) {
  Result<std::optional<UniqueFd>> socket = accept_waiting(listener);
  if (socket) return *std::move(socket);
  log_warning("cannot take a call: {}", socket.error().message);
  WaitLimit(real_clock().now() + kNoDescriptors, interrupt).pause(kNoDescriptors);
  return std::nullopt;
}

Result<UniqueFd> accept_call(int listener, const WaitLimit& limit) {
  for (;;) {
    if (!limit.await(listener, POLLIN)) return error(ErrorCode::kTimeout, "nobody called");
    WD_ASSIGN_OR_RETURN(std::optional<UniqueFd> socket, accept_waiting(listener));
    if (socket) return *std::move(socket);
  }
}

Status read_all(Stream& stream, std::span<std::byte> bytes, const WaitLimit& limit) {
  while (!bytes.empty()) {
    WD_ASSIGN_OR_RETURN(const size_t count, stream.read(bytes));
    bytes = bytes.subspan(count);
    if (count == 0 && !limit.await(stream.fd(), POLLIN))
      return error(ErrorCode::kTimeout, "read: {} bytes did not come", bytes.size());
  }
  return {};
}

Status write_all(Stream& stream, std::span<const std::byte> bytes, const WaitLimit& limit) {
  while (!bytes.empty()) {
    WD_ASSIGN_OR_RETURN(const size_t count, stream.write(bytes));
    bytes = bytes.subspan(count);
    if (count == 0 && !limit.await(stream.fd(), POLLOUT))
      return error(ErrorCode::kTimeout, "write: {} bytes were not taken", bytes.size());
  }
  return {};
}

}  // namespace wideep::fabric
