#include "ep/inbox.h"

#include "base/check.h"

#include <algorithm>
#include <limits>

namespace wideep::ep {

Inbox::Inbox(int32_t num_slots, int64_t arrivals_max, int64_t taken_max)
    : arrivals_max_(arrivals_max), taken_max_(taken_max), queues_(static_cast<size_t>(num_slots)) {
  WD_CHECK(arrivals_max <= std::numeric_limits<int32_t>::max());
  WD_CHECK(taken_max >= 1);
  arrivals_.reserve(static_cast<size_t>(arrivals_max));
  next_.reserve(static_cast<size_t>(arrivals_max));
  taken_.reserve(static_cast<size_t>(std::min(taken_max, arrivals_max)));
  groups_.reserve(queues_.size());
}

void Inbox::clear() {
  std::ranges::fill(queues_, Queue{});
  arrivals_.clear();
  next_.clear();
  num_waiting_ = 0;
}

void Inbox::add(SlotId slot, const Arrival& arrival) {
  WD_CHECK(subscript(slot) < queues_.size());
  WD_CHECK(std::ssize(arrivals_) < arrivals_max_);
  const auto place = static_cast<int32_t>(arrivals_.size());
  arrivals_.push_back(arrival);
  next_.push_back(-1);
  Queue& queue = queues_[subscript(slot)];
  (queue.length == 0 ? queue.first : next_[static_cast<size_t>(queue.last)]) = place;
  queue.last = place;
  ++queue.length;
  ++num_waiting_;
}

std::span<const Inbox::Group> Inbox::take(int64_t at_least) {
  taken_.clear();
  groups_.clear();
  for (size_t s = 0; s < queues_.size(); ++s) {
    Queue& queue = queues_[s];
    if (queue.length == 0 || queue.length < at_least) continue;
    const int64_t room = taken_max_ - std::ssize(taken_);
    if (queue.length > room && !groups_.empty()) continue;
    const int64_t count = std::min(queue.length, room);
    const size_t begin = taken_.size();
    for (int64_t i = 0; i < count; ++i) {
      taken_.push_back(arrivals_[static_cast<size_t>(queue.first)]);
      queue.first = next_[static_cast<size_t>(queue.first)];
    }
    queue.length -= count;
    num_waiting_ -= count;
    // taken_ never grows beyond what is reserved, so the spans stay valid.
    groups_.push_back(
        {SlotId{static_cast<int32_t>(s)}, {taken_.data() + begin, static_cast<size_t>(count)}});
  }
  return groups_;
}

}  // namespace wideep::ep
