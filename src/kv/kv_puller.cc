#include "kv/kv_puller.h"

#include "base/log.h"

#include <algorithm>
#include <utility>

namespace wideep::kv {
namespace {

constexpr std::chrono::hours kLong{1};
constexpr int kBeatsPerLease = 6;

LeaseId lease_of(const TicketPtr& ticket) {
  return LeaseId{ticket->ticket.lease_id};
}

}  // namespace

Result<LinkCache::Found> LinkCache::get(const api::KvTicket& ticket) {
  const auto found = links_.find(ticket.engine_id);
  if (found != links_.end()) return Found{found->second.get(), false};
  if (links_.size() >= links_max_) links_.erase(links_.begin());
  WD_ASSIGN_OR_RETURN(std::unique_ptr<KvLink> link, KvLink::open(ticket, self_, options_));
  log_info("KV: connected to engine {} over {}", ticket.engine_id, name(link->transport()));
  return Found{links_.emplace(ticket.engine_id, std::move(link)).first->second.get(), true};
}

KvPuller::KvPuller(KvPort& port,
                   LinkIdentity self,
                   KvPullerOptions options,
                   TransferMetrics& metrics)
    : port_(port),
      self_(std::move(self)),
      options_(options),
      metrics_(metrics),
      jobs_(options.pulls_max) {
  for (int i = 0; i < options_.num_threads; ++i)
    pullers_.emplace_back([this] { pull_jobs(); });
  notifier_ = std::thread([this] { send_notices(); });
}

KvPuller::~KvPuller() {
  {
    const std::scoped_lock lock(mutex_);
    for (const auto& [sequence, pull] : under_way_)
      *pull.cancelled = true;
  }
  jobs_.close();  // the threads empty it first
  for (std::thread& puller : pullers_)
    puller.join();
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  notifier_.join();
}

void KvPuller::hold(const TicketPtr& ticket) {
  {
    const std::scoped_lock lock(mutex_);
    held_.insert_or_assign(
        lease_of(ticket),
        Held{ticket, real_clock().now() + options_.lease_duration / kBeatsPerLease});
  }
  changed_.notify_all();
}

void KvPuller::pull(PullJob job) {
  const Queued queued{std::move(job), std::make_shared<std::atomic<bool>>(false)};
  const SequenceId sequence = queued.job.sequence;
  {
    const std::scoped_lock lock(mutex_);
    under_way_.emplace(sequence, UnderWay{lease_of(queued.job.ticket), queued.cancelled});
  }
  if (jobs_.try_push(Queued(queued))) return;
  finish(queued,
         {.sequence = sequence,
          .status = error(ErrorCode::kExhausted, "KV: {} pulls are waiting", options_.pulls_max)});
}

void KvPuller::cancel(SequenceId sequence) {
  const std::scoped_lock lock(mutex_);
  const auto found = under_way_.find(sequence);
  if (found != under_way_.end()) *found->second.cancelled = true;
}

void KvPuller::let_go(const TicketPtr& ticket) {
  {
    const std::scoped_lock lock(mutex_);
    held_.erase(lease_of(ticket));
    // Were the lease to end under a pull, that would look like data loss: the pull ends first, and
    // then it.
    bool is_pulled = false;
    for (const auto& [sequence, pull] : under_way_) {
      if (pull.lease != lease_of(ticket)) continue;
      *pull.cancelled = true;
      is_pulled = true;
    }
    if (is_pulled) return;
    if (released_.size() < options_.notices_max)
      released_.push_back(ticket);
    else
      metrics_.on_failed_notice(1);
  }
  changed_.notify_all();
}

void KvPuller::pull_jobs() {
  LinkCache links(self_, options_.link, options_.links_max);
  for (;;) {
    const std::optional<Queued> queued = jobs_.pop(kLong);
    if (queued) {
      finish(*queued, run(*queued, links));
      continue;
    }
    if (jobs_.is_closed()) return;
  }
}

PullOutcome KvPuller::run(const Queued& queued, LinkCache& links) {
  const api::KvTicket& ticket = queued.job.ticket->ticket;
  for (;;) {
    if (*queued.cancelled)
      return {.sequence = queued.job.sequence,
              .status = error(ErrorCode::kCancelled, "KV: the pull was cancelled")};
    const Result<LinkCache::Found> found = links.get(ticket);
    if (!found) return {.sequence = queued.job.sequence, .status = std::unexpected(found.error())};
    PullOutcome outcome = found->link->pull(queued.job, port_.kv_pool(), *queued.cancelled);
    if (!found->link->is_broken()) return outcome;
    links.drop(ticket.engine_id);
    const bool was_stale = !found->is_new && outcome.num_blocks == 0 &&
                           outcome.status.error().code == ErrorCode::kUnavailable;
    if (!was_stale) return outcome;
  }
}

void KvPuller::finish(const Queued& queued, PullOutcome outcome) {
  if (!outcome.status && outcome.status.error().code != ErrorCode::kCancelled)
    log_warning("KV: the pull for request '{}' failed: {}", queued.job.ticket->ticket.request_id,
                outcome.status.error().message);
  metrics_.on_pull(outcome);
  {
    const std::scoped_lock lock(mutex_);
    under_way_.erase(queued.job.sequence);
  }
  port_.pull_ended(std::move(outcome));
  let_go(queued.job.ticket);
}

void KvPuller::send_notices() {
  LinkCache links(self_, options_.link, options_.links_max);
  std::unique_lock lock(mutex_);
  for (;;) {
    TimePoint wake_at = real_clock().now() + kLong;
    for (const auto& [lease, held] : held_)
      wake_at = std::min(wake_at, held.next_beat);
    if (released_.empty() && !stop_ && wake_at > real_clock().now()) {
      changed_.wait_until(lock, wake_at);
      continue;
    }
    const std::vector<TicketPtr> released = std::exchange(released_, {});
    std::vector<TicketPtr> beats;
    const TimePoint now = real_clock().now();
    for (auto& [lease, held] : held_) {
      if (held.next_beat > now) continue;
      held.next_beat = now + options_.lease_duration / kBeatsPerLease;
      beats.push_back(held.ticket);
    }
    const bool was_last = stop_;
    lock.unlock();
    send(links, LeaseNotice::What::kRelease, released);
    send(links, LeaseNotice::What::kHeartbeat, beats);
    if (was_last) return;
    lock.lock();
  }
}

// Grouped by producer. What cannot be sent is not tried again: the lease expires by itself.
void KvPuller::send(LinkCache& links,
                    LeaseNotice::What what,
                    const std::vector<TicketPtr>& tickets) {
  std::map<std::string, std::vector<TicketPtr>> by_engine;
  for (const TicketPtr& ticket : tickets)
    by_engine[ticket->ticket.engine_id].push_back(ticket);
  for (const auto& [engine_id, group] : by_engine) {
    for (size_t begin = 0; begin < group.size(); begin += LeaseNotice::kLeasesMax) {
      const size_t end = std::min(group.size(), begin + LeaseNotice::kLeasesMax);
      LeaseNotice notice{.what = what, .leases = {}};
      for (size_t i = begin; i < end; ++i)
        notice.leases.push_back(lease_of(group[i]));
      const Status sent = notify(links, group[begin]->ticket, notice);
      if (sent) continue;
      metrics_.on_failed_notice(static_cast<int64_t>(notice.leases.size()));
      log_warning("KV: engine {} does not hear about {} leases: {}", engine_id,
                  notice.leases.size(), sent.error().message);
    }
  }
}

// A connection that the producer has closed meanwhile is replaced once.
Status KvPuller::notify(LinkCache& links, const api::KvTicket& ticket, const LeaseNotice& notice) {
  for (;;) {
    WD_ASSIGN_OR_RETURN(const LinkCache::Found found, links.get(ticket));
    Status sent = found.link->notify(notice);
    if (sent) return sent;
    links.drop(ticket.engine_id);
    if (found.is_new) return sent;
  }
}

}  // namespace wideep::kv
