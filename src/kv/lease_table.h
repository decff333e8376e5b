// The blocks that this rank keeps for others to pull, and until when.
//
//   grant ──▶ live ──release, or expire past the deadline──▶ ended (on_ended is told, once)
//                └─ extend: a heartbeat of whoever waits for it
//                └─ pin: somebody is pulling right now; it ends only after the last pin
//
// The engine grants a lease with a request's last token and keeps the references of its blocks
// until it is told that the lease has ended. Only this rank judges expiry, by its own clock.
//
// Thread: any. on_ended is called on the thread that ends the lease, without a lock.
#pragma once

#include "api/kv_ticket.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/result.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

namespace wideep::kv {

enum class LeaseId : uint64_t {};

struct LeaseOptions {
  Duration duration = std::chrono::seconds{30};
  int64_t leases_max = 1024;
  int64_t blocks_max = 0;  // of all leases together
};

// What is leased, as its ticket says it.
struct Lease {
  Digest prompt_hash{};
  int64_t num_tokens = 0;
  std::vector<api::KvTicket::Block> blocks;
};

struct LeaseStats {
  int64_t num_live = 0;
  int64_t num_blocks = 0;
  int64_t num_granted = 0;
  int64_t num_extended = 0;  // heartbeats
  int64_t num_expired = 0;
  int64_t num_refused = 0;  // at a limit
};

class LeaseTable {
 public:
  LeaseTable(const Clock& clock, LeaseOptions options, std::function<void(LeaseId)> on_ended);

  // Keeps a lease from ending while it lives.
  class Pin {
   public:
    Pin(LeaseTable& table, LeaseId id, std::shared_ptr<const Lease> lease)
        : table_(&table), id_(id), lease_(std::move(lease)) {}

    ~Pin();
    Pin(Pin&& other) noexcept;
    Pin& operator=(Pin&&) = delete;
    Pin(const Pin&) = delete;
    Pin& operator=(const Pin&) = delete;

    const Lease& lease() const { return *lease_; }

   private:
    LeaseTable* table_;
    LeaseId id_;
    std::shared_ptr<const Lease> lease_;  // shared with the table, which may forget it first
  };

  // kExhausted at a limit.
  Result<LeaseId> grant(Lease lease);
  // At least two thirds of the duration from now on. Nothing happens if it has ended.
  void extend(LeaseId id);
  void release(LeaseId id);
  // Nothing if it has ended, or is about to.
  std::optional<Pin> pin(LeaseId id);
  // Ends what is past its deadline. Returns in what time to come again at the latest.
  Duration expire();

  const LeaseOptions& options() const { return options_; }

  LeaseStats stats() const;

 private:
  struct Entry {
    std::shared_ptr<const Lease> lease;
    TimePoint deadline;
    int32_t num_pins = 0;
    bool is_released = false;
  };

  using Entries = std::unordered_map<LeaseId, Entry>;

  void unpin(LeaseId id);
  void forget(Entries::iterator entry);

  const Clock& clock_;
  const LeaseOptions options_;
  const std::function<void(LeaseId)> on_ended_;
  mutable std::mutex mutex_;
  Entries entries_;
  LeaseStats stats_;
};

}  // namespace wideep::kv
