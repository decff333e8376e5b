// What has arrived for the experts of this rank in one exchange, by slot. Bounded: all memory is
// taken at construction. Knows no fabric; who fills it has validated what came from outside.
// Thread: the engine thread.
#pragma once

#include "base/ids.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace wideep::ep {

// A row to compute: where it lies and where its result is awaited.
struct Arrival {
  const std::byte* row = nullptr;
  RankId source{};
  uint32_t token = 0;
  uint16_t k = 0;
};

class Inbox {
 public:
  // arrivals_max: of one exchange; taken_max: of one take().
  Inbox(int32_t num_slots, int64_t arrivals_max, int64_t taken_max);

  // A new exchange: forgets everything.
  void clear();
  // The slot must exist and there must be room (checked).
  void add(SlotId slot, const Arrival& arrival);

  int64_t num_waiting() const { return num_waiting_; }

  int64_t num_waiting(SlotId slot) const { return queues_[subscript(slot)].length; }

  struct Group {
    SlotId slot{};
    std::span<const Arrival> arrivals;  // in order of arrival
  };

  // Takes out all rows of slots that have at least `at_least`, slot by slot, up to taken_max rows.
  // A slot goes whole, unless it alone is more than taken_max. Valid until the next call.
  std::span<const Group> take(int64_t at_least);

 private:
  struct Queue {
    int32_t first = -1;
    int32_t last = -1;
    int64_t length = 0;
  };

  const int64_t arrivals_max_;
  const int64_t taken_max_;
  std::vector<Queue> queues_;      // [num_slots], chains through next_
  std::vector<Arrival> arrivals_;  // in order of arrival
  std::vector<int32_t> next_;
  int64_t num_waiting_ = 0;
  std::vector<Arrival> taken_;
  std::vector<Group> groups_;
};

}  // namespace wideep::ep
