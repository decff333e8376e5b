#include "fabric/connection_threads.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <utility>

namespace wideep::fabric {

Status ConnectionThreads::start(UniqueFd socket,
                                int64_t tag,
                                std::function<void(UniqueFd socket)> body) {
  const std::scoped_lock lock(mutex_);
  reap();
  if (std::ssize(connections_) >= connections_max_)
    return error(ErrorCode::kExhausted, "{} connections are open", connections_.size());
  UniqueFd second(fcntl(socket.get(), F_DUPFD_CLOEXEC, 0));
  if (!second) return error(ErrorCode::kExhausted, "no descriptor for a connection");
  Connection& connection = connections_.emplace_back();
  connection.tag = tag;
  connection.socket = std::move(second);
  connection.thread = std::thread(
      [this, &connection, body = std::move(body), socket = std::move(socket)]() mutable {
        body(std::move(socket));
        {
          const std::scoped_lock closing(mutex_);
          connection.socket.reset();
        }
        connection.has_ended = true;
      });
  return {};
}

void ConnectionThreads::reap() {
  connections_.remove_if([](Connection& connection) {
    if (!connection.has_ended) return false;
    connection.thread.join();
    return true;
  });
}

void ConnectionThreads::cut(int64_t tag) {
  const std::scoped_lock lock(mutex_);
  for (const Connection& connection : connections_)
    if (connection.socket && connection.tag == tag) shutdown(connection.socket.get(), SHUT_RDWR);
}

void ConnectionThreads::end_all() {
  {
    const std::scoped_lock lock(mutex_);
    for (const Connection& connection : connections_)
      if (connection.socket) shutdown(connection.socket.get(), SHUT_RDWR);
  }
  for (Connection& connection : connections_)
    connection.thread.join();
  connections_.clear();
}

}  // namespace wideep::fabric
