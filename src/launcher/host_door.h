// The first host's side of a group over several hosts: makes the ranks of the other hosts
// reachable here, each at a Unix socket, as if they ran here.
//
//   HTTP client ── Unix socket of rank r ──► HostDoor ◄── connection ── HostLink ──► rank r
//
// Other hosts connect by themselves (HostLink), prove that they know the group's key, and say
// which of their ranks are ready. A connection to such a socket is passed on to that host; if the
// host is away or does not answer in time it is closed. A host that says nothing for
// `liveness` is lost: its ranks are not ready, its connections are cut.
//
// Ownership: the files of the sockets are the caller's to remove. Thread: any.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "fabric/connection_threads.h"
#include "fabric/event.h"
#include "fabric/unique_fd.h"
#include "launcher/host_wire.h"
#include "net/address.h"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace wideep::launcher {

struct HostDoorOptions {
  net::Address listen;
  std::optional<fabric::PresharedKey> key;
  int32_t num_ranks = 1;
  RankRange own;  // those of this host, which are none of our business
  // Where a rank of another host is to be reached; in a folder that only we may enter.
  std::function<std::string(int32_t rank)> socket_of;
  std::function<void()> on_change;  // of ready_ranks(); on a thread of ours
  int connections_max = 1024;       // in all; one more is closed at once
  Duration liveness = std::chrono::seconds{3};
  Duration patience = std::chrono::seconds{2};  // for a handshake, and for a host to call back
};

class HostDoor {
  struct Private {};

 public:
  // kUnavailable: the address is taken.
  static Result<std::unique_ptr<HostDoor>> create(HostDoorOptions options);
  ~HostDoor();

  // With the kernel's choice of port.
  const net::Address& address() const { return address_; }

  // Of other hosts, in order.
  std::vector<int32_t> ready_ranks() const;

  // For create() only.
  HostDoor(Private, HostDoorOptions options);

 private:
  // A host that has come. Its own thread reads and writes its connection.
  struct Host {
    int64_t id = 0;
    RankRange ranks;
    std::vector<bool> ready;
    std::vector<HostCall> calls;  // to be sent
    fabric::Event wake;           // there are calls
  };

  // A connection that a host was asked for.
  struct Awaited {
    std::unique_ptr<fabric::Stream> stream;
    bool has_come = false;
  };

  Status listen();
  void run();
  void accept_from(int listener, std::optional<int32_t> rank);
  Status take_call(fabric::UniqueFd socket);
  Status serve_host(fabric::Stream& stream, const HostGreeting& greeting);
  Result<std::shared_ptr<Host>> admit(const HostGreeting& greeting);
  Status converse(fabric::Stream& stream, Host& host);
  Status take_ready(Host& host, std::vector<std::byte>& input);
  Status serve_client(fabric::UniqueFd socket, int32_t rank, int64_t host);
  std::unique_ptr<fabric::Stream> await_connection(int32_t rank, int64_t host);
  // Who has it now, by id.
  std::optional<int64_t> host_of(int32_t rank) const;

  const HostDoorOptions options_;
  net::Address address_;
  fabric::UniqueFd tcp_;
  std::map<int32_t, fabric::UniqueFd> listeners_;  // by rank
  fabric::Event stop_;                             // ends run()
  mutable std::mutex mutex_;                       // guards what follows, but for the threads
  std::condition_variable came_;
  std::map<int64_t, std::shared_ptr<Host>> hosts_;  // shared with the thread of each
  std::map<uint64_t, Awaited> awaited_;
  int64_t next_host_ = 1;
  fabric::ConnectionThreads connections_;
  std::thread thread_;
};

}  // namespace wideep::launcher
