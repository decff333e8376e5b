// Connections that each have a thread of their own: at most so many, and all of them can be cut.
//
// Thread: any. The destructor cuts what is open and waits for the threads, so bodies must end soon
// when reads and writes on their socket fail.
#pragma once

#include "base/result.h"
#include "fabric/unique_fd.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <thread>

namespace wideep::fabric {

class ConnectionThreads {
 public:
  explicit ConnectionThreads(int connections_max) : connections_max_(connections_max) {}

  ~ConnectionThreads() { end_all(); }

  ConnectionThreads(const ConnectionThreads&) = delete;
  ConnectionThreads& operator=(const ConnectionThreads&) = delete;

  // Runs `body` on a thread with a connected socket. `tag` is for cut(). kExhausted: as many as
  // allowed are open, or there are no descriptors; the socket is closed then.
  Status start(UniqueFd socket, int64_t tag, std::function<void(UniqueFd socket)> body);
  // Shuts down the sockets of those with this tag; their threads end by themselves.
  void cut(int64_t tag);
  // Cuts all and waits for their threads. Nothing may be started meanwhile or after.
  void end_all();

 private:
  struct Connection {
    std::atomic<bool> has_ended = false;
    int64_t tag = 0;
    UniqueFd socket;  // a second descriptor, not to shut down somebody else's; under mutex_
    std::thread thread;
  };

  void reap();  // with mutex_ held

  const int connections_max_;
  std::mutex mutex_;  // guards the list and the sockets in it
  std::list<Connection> connections_;
};

}  // namespace wideep::fabric
