// Another host's side of a group over several hosts: keeps a link to the door on the first host,
// tells it which ranks are ready here, and connects its requests to them. See host_door.h.
//
// Ownership: none. Thread: any; the link has threads of its own. While the door is away it tries
// again, for ever.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "fabric/connection_threads.h"
#include "fabric/event.h"
#include "fabric/unique_fd.h"
#include "launcher/host_wire.h"
#include "net/address.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace wideep::launcher {

struct HostLinkOptions {
  net::Address door;
  std::optional<fabric::PresharedKey> key;
  int32_t num_ranks = 1;
  RankRange ranks;                                     // of this host
  std::function<std::string(int32_t rank)> socket_of;  // where each serves
  int connections_max = 1024;                          // in all; one more is refused
  Duration beat = std::chrono::seconds{1};             // the door knows the liveness deadline
  Duration patience = std::chrono::seconds{2};         // for a connection and its handshake
  Duration silence_max = std::chrono::seconds{3};      // unacknowledged: the connection's end
  Duration complain_every = std::chrono::seconds{10};  // while there is no door
};

class HostLink {
 public:
  explicit HostLink(HostLinkOptions options);
  // Cuts everything.
  ~HostLink();
  HostLink(const HostLink&) = delete;
  HostLink& operator=(const HostLink&) = delete;

  // One for each rank of this host.
  void set_ready(std::vector<bool> ready);

 private:
  void run();
  Result<std::unique_ptr<fabric::Stream>> call(const HostGreeting& greeting) const;
  Result<std::unique_ptr<fabric::Stream>> introduce() const;
  Status converse(fabric::Stream& stream);
  Status take_calls(std::vector<std::byte>& input);
  Status answer(const HostCall& call, fabric::UniqueFd rank) const;

  const HostLinkOptions options_;
  fabric::Event wake_;  // ready_ has changed, or it is the end
  std::atomic<bool> is_stopping_{false};
  std::mutex mutex_;
  std::vector<bool> ready_;  // guarded by mutex_
  fabric::ConnectionThreads connections_;
  std::thread thread_;
};

}  // namespace wideep::launcher
