// The library behind net: for .cc files of net and http only, so that nobody else compiles Asio.
#pragma once

#include "base/result.h"
#include "net/address.h"
#include "net/event_loop.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

namespace wideep::net {

namespace asio = boost::asio;
using boost::system::error_code;

struct EventLoop::Core {
  asio::io_context context{1};
  std::atomic<std::thread::id> thread;
};

// TCP and Unix sockets under one type.
using Protocol = asio::generic::stream_protocol;
using Socket = Protocol::socket;
using Acceptor = asio::basic_socket_acceptor<Protocol>;

inline asio::io_context& context(EventLoop& loop) {
  return loop.core().context;
}

// The socket address for `address`; names must be resolved already (see resolve).
Result<Protocol::endpoint> to_endpoint(const Address& address);

// A listening socket, with its address (the port that the kernel chose for port 0).
struct Listener {
  Acceptor acceptor;
  Address address;
};

Result<Listener> listen(EventLoop& loop, const Address& address, const ListenOptions& options);

// TCP_NODELAY on TCP sockets; nothing on others.
void set_no_delay(Socket& socket);

// Ends a TCP connection whose other side has vanished, as a machine does that loses its power: when
// it is quiet, by keep-alive, after about `silence_max` without a sign of life. Whole seconds, at
// least 4. Nothing on other sockets.
void notice_silence(Socket& socket, std::chrono::seconds silence_max);
// … and also when what was sent is not acknowledged. Not for peers that may read slowly.
void notice_lost_data(Socket& socket, std::chrono::seconds silence_max);

// "10.0.0.7:51234", "unix" or "?".
std::string peer_name(const Socket& socket);

}  // namespace wideep::net
