// A consumer's connection to one producer: shared memory if the producer hands it over, else TCP.
//
// Ownership: borrows nothing. Thread: one at a time.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "fabric/shared_memory.h"
#include "fabric/stream.h"
#include "kv/block_pool.h"
#include "kv/kv_source.h"
#include "kv/transfer_keys.h"
#include "kv/wire.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace wideep::kv {

struct LinkOptions {
  bool use_shared_memory = true;
  bool use_tcp = true;
  Duration connect_timeout = std::chrono::seconds{1};
  Duration handshake_timeout = std::chrono::seconds{5};
  Duration stall_timeout = std::chrono::seconds{5};  // a producer that sends nothing
};

// Who calls, and how.
struct LinkIdentity {
  std::string engine_id;
  std::string identity;
  KvLayout layout;
  TransferKeys keys;
  bool allow_plain = false;  // other hosts without a key
};

class KvLink {
  struct Private {};

 public:
  // Connects to the ticket's producer and agrees with it. kInvalidArgument: the two do not fit;
  // kNotFound: another engine answers there; kUnavailable, kTimeout: nobody does.
  static Result<std::unique_ptr<KvLink>> open(const api::KvTicket& ticket,
                                              const LinkIdentity& self,
                                              const LinkOptions& options);

  Transport transport() const { return image_ ? Transport::kSharedMemory : Transport::kTcp; }

  // Copies into `pool`. After an error other than the producer's refusal the link is of no more use
  // (is_broken). kCancelled when `cancelled` turns true.
  PullOutcome pull(const PullJob& job, const BlockPool& pool, const std::atomic<bool>& cancelled);
  Status notify(const LeaseNotice& notice);

  bool is_broken() const { return is_broken_; }

  // For open() only.
  KvLink(Private,
         std::unique_ptr<fabric::Stream> stream,
         const LinkIdentity& self,
         const LinkOptions& options);

 private:
  struct Pull;

  static Result<std::unique_ptr<KvLink>> open_local(const api::KvTicket& ticket,
                                                    const LinkIdentity& self,
                                                    const LinkOptions& options);
  static Result<std::unique_ptr<KvLink>> open_tcp(const api::KvTicket& ticket,
                                                  const LinkIdentity& self,
                                                  const LinkOptions& options);
  Result<Hello> greet(const api::KvTicket& ticket, const LinkIdentity& self);
  Status request(const Pull& pull);
  Status receive_blocks(const Pull& pull, int64_t& num_good);
  Status copy_blocks(const Pull& pull, int64_t& num_good);
  Status read(std::span<std::byte> bytes, const std::atomic<bool>& cancelled);

  std::unique_ptr<fabric::Stream> stream_;
  const TransferKeys keys_;
  const LinkOptions options_;
  std::optional<PoolImage> image_;  // of the producer's pool, with shared memory
  fabric::SharedMemory memory_;
  bool is_broken_ = false;
};

}  // namespace wideep::kv
