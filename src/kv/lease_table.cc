#include "kv/lease_table.h"

#include "base/random.h"

#include <algorithm>
#include <utility>

namespace wideep::kv {

LeaseTable::LeaseTable(const Clock& clock,
                       LeaseOptions options,
                       std::function<void(LeaseId)> on_ended)
    : clock_(clock), options_(options), on_ended_(std::move(on_ended)) {}

LeaseTable::Pin::~Pin() {
  if (table_ != nullptr) table_->unpin(id_);
}

LeaseTable::Pin::Pin(Pin&& other) noexcept
    : table_(std::exchange(other.table_, nullptr)),
      id_(other.id_),
      lease_(std::move(other.lease_)) {}

Result<LeaseId> LeaseTable::grant(Lease lease) {
  const auto num_blocks = static_cast<int64_t>(lease.blocks.size());
  const std::scoped_lock lock(mutex_);
  if (stats_.num_live >= options_.leases_max ||
      stats_.num_blocks + num_blocks > options_.blocks_max) {
    ++stats_.num_refused;
    return error(ErrorCode::kExhausted, "{} leases hold {} KV blocks, at most {} may hold {}",
                 stats_.num_live, stats_.num_blocks, options_.leases_max, options_.blocks_max);
  }
  LeaseId id{random_device_bits()};  // that nobody can guess
  while (entries_.contains(id))
    id = LeaseId{random_device_bits()};
  entries_.emplace(id, Entry{.lease = std::make_shared<const Lease>(std::move(lease)),
                             .deadline = clock_.now() + options_.duration});
  ++stats_.num_live;
  ++stats_.num_granted;
  stats_.num_blocks += num_blocks;
  return id;
}

void LeaseTable::extend(LeaseId id) {
  const std::scoped_lock lock(mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  ++stats_.num_extended;
  it->second.deadline = std::max(it->second.deadline, clock_.now() + options_.duration * 2 / 3);
}

void LeaseTable::release(LeaseId id) {
  {
    const std::scoped_lock lock(mutex_);
    const auto it = entries_.find(id);
    if (it == entries_.end()) return;
    it->second.is_released = true;
    if (it->second.num_pins > 0) return;
    forget(it);
  }
  on_ended_(id);
}

std::optional<LeaseTable::Pin> LeaseTable::pin(LeaseId id) {
  const std::scoped_lock lock(mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end() || it->second.is_released) return std::nullopt;
  ++it->second.num_pins;
  return Pin(*this, id, it->second.lease);
}

void LeaseTable::unpin(LeaseId id) {
  {
    const std::scoped_lock lock(mutex_);
    const auto it = entries_.find(id);
    if (--it->second.num_pins > 0 || !it->second.is_released) return;
    forget(it);
  }
  on_ended_(id);
}

Duration LeaseTable::expire() {
  std::vector<LeaseId> ended;
  Duration wait = options_.duration / 4;
  {
    const std::scoped_lock lock(mutex_);
    const TimePoint now = clock_.now();
    for (auto it = entries_.begin(); it != entries_.end();) {
      const auto entry = it++;
      if (entry->second.num_pins > 0) continue;
      if (entry->second.deadline > now) {
        wait = std::min(wait, entry->second.deadline - now);
        continue;
      }
      ended.push_back(entry->first);
      ++stats_.num_expired;
      forget(entry);
    }
  }
  for (const LeaseId id : ended)
    on_ended_(id);
  return wait;
}

void LeaseTable::forget(Entries::iterator entry) {
  --stats_.num_live;
  stats_.num_blocks -= static_cast<int64_t>(entry->second.lease->blocks.size());
  entries_.erase(entry);
}

LeaseStats LeaseTable::stats() const {
  const std::scoped_lock lock(mutex_);
  return stats_;
}

}  // namespace wideep::kv
