// Serves the leases of this rank to those who pull: its threads do all the work, the engine's none.
//
//   over TCP      bytes and checksums of the blocks, read from the pool and sent
//   on this host  the descriptor of the pool once, for reading only; then only checksums: the
//                 consumer copies by itself
//
// Every connection has a thread; there are at most `connections_max`. Another thread accepts, and
// ends leases that are past their deadline.
//
// Ownership: borrows pool and leases, which must outlive it. Thread: created and destroyed
// anywhere.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "fabric/connection_threads.h"
#include "fabric/event.h"
#include "fabric/unique_fd.h"
#include "kv/block_pool.h"
#include "kv/lease_table.h"
#include "kv/transfer_keys.h"
#include "kv/wire.h"
#include "net/address.h"

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

namespace wideep::kv {

struct KvServerParts {
  const BlockPool& pool;
  LeaseTable& leases;
  std::string engine_id;
  std::string identity;
  TransferKeys keys;
};

struct KvServerOptions {
  net::Address listen;              // of TCP
  bool offer_shared_memory = true;  // to consumers on this host
  int connections_max = 256;
  Duration handshake_timeout = std::chrono::seconds{5};
  Duration stall_timeout = std::chrono::seconds{5};    // a consumer that takes nothing
  Duration idle_timeout = std::chrono::seconds{3600};  // a connection without messages
};

// Where consumers on the same host find the producer with that engine id.
std::string local_name(const std::string& engine_id);

class KvServer {
  struct Private {};

 public:
  // Listens and starts the threads. kUnavailable: the address is taken.
  static Result<std::unique_ptr<KvServer>> create(KvServerParts parts, KvServerOptions options);
  // Cuts all connections.
  ~KvServer();

  // With the kernel's choice of port.
  const net::Address& address() const { return address_; }

  // For create() only.
  KvServer(Private, KvServerParts parts, KvServerOptions options);

 private:
  enum class Kind : uint8_t { kTcp, kLocal };

  Status listen();
  void run();
  void accept_from(int listener, Kind kind);
  Status converse(fabric::UniqueFd socket, Kind kind);
  Status greet(fabric::Stream& stream);
  Status answer(fabric::Stream& stream, const Message& message);
  Status answer_pull(fabric::Stream& stream, const PullRequest& pull);
  Result<LeaseTable::Pin> admit(const PullRequest& pull) const;
  Status send_blocks(fabric::Stream& stream, const PullRequest& pull, const Lease& lease);
  Status refuse(fabric::Stream& stream, const Error& reason);

  TimePoint stall_deadline() const { return real_clock().now() + options_.stall_timeout; }

  const KvServerParts parts_;
  const KvServerOptions options_;
  net::Address address_;
  fabric::UniqueFd tcp_;
  fabric::UniqueFd local_;
  fabric::Event stop_;  // ends run()
  fabric::ConnectionThreads connections_;
  std::thread thread_;
};

}  // namespace wideep::kv
