// Listening sockets and what TCP and Unix sockets need told apart.
#include "net/asio.h"

#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>

namespace wideep::net {
namespace {

// A socket file that nobody listens on is what a dead process left behind.
Status remove_stale_socket(const std::string& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return {};
  if (!S_ISSOCK(status.st_mode)) {
    return error(ErrorCode::kUnavailable, "{} exists and is no socket", path);
  }
  asio::io_context probe_context;
  Socket probe(probe_context);
  error_code ec;
  probe.connect(asio::local::stream_protocol::endpoint(path), ec);
  if (!ec) return error(ErrorCode::kUnavailable, "{}: another process listens there", path);
  ::unlink(path.c_str());
  return {};
}

Address bound_address(const Acceptor& acceptor, Address address) {
  if (address.is_unix()) return address;
  const Protocol::endpoint local = acceptor.local_endpoint();
  asio::ip::tcp::endpoint tcp;
  std::memcpy(tcp.data(), local.data(), std::min(local.size(), tcp.capacity()));
  address.port = tcp.port();
  return address;
}

void set_option(Socket& socket, int level, int name, int value) {
  ::setsockopt(socket.native_handle(), level, name, &value, sizeof value);
}

}  // namespace

Result<Protocol::endpoint> to_endpoint(const Address& address) {
  if (address.is_unix()) {
    if (address.path.size() >= sizeof(sockaddr_un::sun_path)) {
      return invalid_argument("Unix socket path of {} bytes", address.path.size());
    }
    return Protocol::endpoint(asio::local::stream_protocol::endpoint(address.path));
  }
  const std::string host = address.host == "localhost" ? "127.0.0.1" : address.host;
  error_code ec;
  const auto ip = asio::ip::make_address(host, ec);
  if (ec) return error(ErrorCode::kNotFound, "'{}' is no IP address", address.host);
  return Protocol::endpoint(asio::ip::tcp::endpoint(ip, address.port));
}

Result<Listener> listen(EventLoop& loop, const Address& address, const ListenOptions& options) {
  if (address.is_unix()) WD_TRY(remove_stale_socket(address.path));
  WD_ASSIGN_OR_RETURN(const Protocol::endpoint endpoint, to_endpoint(address));
  const auto failed = [&](const error_code& ec) {
    return error(ErrorCode::kUnavailable, "cannot listen on {}: {}", address.to_string(),
                 ec.message());
  };
  error_code ec;
  Acceptor acceptor(context(loop));
  acceptor.open(endpoint.protocol(), ec);
  if (ec) return failed(ec);
  if (!address.is_unix()) {
    acceptor.set_option(asio::socket_base::reuse_address(true), ec);
    using ReusePort = asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;
    if (!ec && options.reuse_port) acceptor.set_option(ReusePort(true), ec);
    if (ec) return failed(ec);
  }
  acceptor.bind(endpoint, ec);
  if (ec) return failed(ec);
  if (address.is_unix()) ::chmod(address.path.c_str(), options.unix_mode);
  acceptor.listen(options.backlog, ec);
  if (ec) return failed(ec);
  Address bound = bound_address(acceptor, address);
  return Listener{std::move(acceptor), std::move(bound)};
}

// Options of TCP fail on Unix sockets, which have nothing to delay and whose peers cannot vanish.
void set_no_delay(Socket& socket) {
  set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
}

void notice_silence(Socket& socket, std::chrono::seconds silence_max) {
  constexpr int kProbes = 3;
  const auto interval = static_cast<int>(silence_max.count()) / (kProbes + 1);
  set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, interval);
  set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, interval);
  set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, kProbes);
}

void notice_lost_data(Socket& socket, std::chrono::seconds silence_max) {
  const std::chrono::milliseconds timeout = silence_max;
  set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(timeout.count()));
}

std::string peer_name(const Socket& socket) {
  error_code ec;
  const Protocol::endpoint remote = socket.remote_endpoint(ec);
  if (ec) return "?";
  if (remote.data()->sa_family == AF_UNIX) return "unix";
  asio::ip::tcp::endpoint tcp;
  if (remote.size() > tcp.capacity()) return "?";
  std::memcpy(tcp.data(), remote.data(), remote.size());
  return Address{tcp.address().to_string(), tcp.port(), {}}.to_string();
}

}  // namespace wideep::net
