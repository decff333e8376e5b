// The decode rank's side of KV transfer: threads that pull, and one that keeps leases alive while
// their requests wait and lets them go when nobody wants them any more.
//
// Each thread keeps its own connections, one per producer. A pull that fails on a connection from
// before is tried once more on a new one. Every pull has a deadline.
//
// Ownership: borrows the port, which must outlive it. Thread: any.
#pragma once

#include "base/bounded_queue.h"
#include "base/clock.h"
#include "kv/kv_link.h"
#include "kv/kv_port.h"
#include "kv/kv_source.h"
#include "kv/transfer_metrics.h"

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace wideep::kv {

struct KvPullerOptions {
  LinkOptions link;
  int num_threads = 2;
  size_t pulls_max = 1024;    // waiting for a thread; one more fails at once
  size_t notices_max = 4096;  // releases to be sent; one more is left to expire
  size_t links_max = 64;      // of a thread
  Duration lease_duration = std::chrono::seconds{30};  // of producers; heartbeats come six a lease
};

// Connections by engine id.
class LinkCache {
 public:
  LinkCache(const LinkIdentity& self, const LinkOptions& options, size_t links_max)
      : self_(self), options_(options), links_max_(links_max) {}

  struct Found {
    KvLink* link = nullptr;
    bool is_new = false;
  };

  Result<Found> get(const api::KvTicket& ticket);

  void drop(const std::string& engine_id) { links_.erase(engine_id); }

 private:
  const LinkIdentity& self_;
  const LinkOptions& options_;
  const size_t links_max_;
  std::map<std::string, std::unique_ptr<KvLink>> links_;
};

class KvPuller : public KvSource {
 public:
  // `metrics` may be shared with the server's side.
  KvPuller(KvPort& port, LinkIdentity self, KvPullerOptions options, TransferMetrics& metrics);
  // Cancels what is under way; every pull still ends.
  ~KvPuller() override;

  void hold(const TicketPtr& ticket) override;
  void pull(PullJob job) override;
  void cancel(SequenceId sequence) override;
  void let_go(const TicketPtr& ticket) override;

 private:
  struct Held {
    TicketPtr ticket;
    TimePoint next_beat;
  };

  struct Queued {
    PullJob job;
    std::shared_ptr<std::atomic<bool>> cancelled;  // shared with under_way_
  };

  struct UnderWay {
    LeaseId lease{};
    std::shared_ptr<std::atomic<bool>> cancelled;  // shared with its thread
  };

  void pull_jobs();
  PullOutcome run(const Queued& queued, LinkCache& links);
  void finish(const Queued& queued, PullOutcome outcome);
  void send_notices();
  void send(LinkCache& links, LeaseNotice::What what, const std::vector<TicketPtr>& tickets);
  static Status notify(LinkCache& links, const api::KvTicket& ticket, const LeaseNotice& notice);

  KvPort& port_;
  const LinkIdentity self_;
  const KvPullerOptions options_;
  TransferMetrics& metrics_;
  BoundedQueue<Queued> jobs_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<SequenceId, UnderWay> under_way_;
  std::unordered_map<LeaseId, Held> held_;
  std::vector<TicketPtr> released_;
  bool stop_ = false;

  std::vector<std::thread> pullers_;
  std::thread notifier_;
};

}  // namespace wideep::kv
