// What an arena looks like in shared memory. Everything is zero at first and written by one rank:
//
//   header   64 bytes            magic, epoch, rank: written by the owner before it is handed over
//   bell     64 bytes            how the owner sleeps and is woken
//   life     64 bytes x ranks    when this node last heard of each rank
//   lines    64 bytes x channels x ranks   the last signal of each (channel, source)
//   bytes    Shape::arena_bytes, from a page boundary: what put() and mapped() are about
//
// A value type: pointers into memory that somebody else keeps mapped. Thread: any; bell, life and
// lines are atomic, who may touch the bytes when is for their users to settle.
#pragma once

#include "base/clock.h"
#include "base/function_ref.h"
#include "fabric/fabric.h"

#include <atomic>
#include <cstdint>
#include <span>

namespace wideep::fabric {

struct alignas(64) ArenaHeader {
  uint64_t magic = 0;
  uint64_t epoch = 0;
  int64_t rank = 0;
  uint64_t shape_hash = 0;
};

// A futex with a count of sleepers, so that ringing costs a system call only when somebody sleeps.
class alignas(64) Bell {
 public:
  // After something was stored that a sleeper may wait for.
  void ring_if_asleep();
  void ring();
  // Sleeps until rung or `timeout`, unless ready() after announcing the sleep.
  void sleep_unless(FunctionRef<bool()> ready, Duration timeout);

 private:
  std::atomic<uint32_t> tickets_;
  std::atomic<uint32_t> sleepers_;
};

struct alignas(64) LifeLine {
  std::atomic<int64_t> heard_ns;  // of the host's monotonic clock
};

// Written field by field, the sequence number last, and the epoch, which makes a line exist, behind
// it; read the other way round. A reader that sees a sequence number sees the words written with it
// or, if the writer goes on meanwhile, later ones: users raise a count under the same number or
// know that the writer waits for them. UCX writes lines from outside by these offsets: epoch 0,
// seq 8, count 16, words 24.
class alignas(64) SignalLine {
 public:
  void store(uint64_t epoch, const Signal& signal);
  std::optional<Signal> load(uint64_t epoch) const;

 private:
  std::atomic<uint64_t> epoch_;
  std::atomic<uint64_t> seq_;
  std::atomic<uint64_t> count_;
  std::atomic<uint64_t> words_[5];
};

static_assert(sizeof(ArenaHeader) == 64);
static_assert(sizeof(Bell) == 64);
static_assert(sizeof(LifeLine) == 64);
static_assert(sizeof(SignalLine) == 64);

class Arena {
 public:
  Arena() = default;
  // memory: bytes_for(shape), page-aligned.
  Arena(std::span<std::byte> memory, const Shape& shape);

  static int64_t bytes_for(const Shape& shape);
  // Offsets in that memory, for those who write from outside.
  static int64_t bytes_offset(const Shape& shape);
  static int64_t line_offset(const Shape& shape, ChannelId channel, RankId source);

  explicit operator bool() const { return header_ != nullptr; }

  // By the owner, once.
  void initialise(const Shape& shape, RankId rank, uint64_t shape_hash);
  // That the memory which `rank` handed over is its arena of this epoch.
  Status check(const Shape& shape, RankId rank, uint64_t shape_hash) const;

  Bell& bell() const { return *bell_; }

  LifeLine& life(RankId source) const { return life_[index(source)]; }

  SignalLine& line(ChannelId channel, RankId source) const {
    return lines_[index(channel) * num_ranks_ + index(source)];
  }

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  ArenaHeader* header_ = nullptr;
  Bell* bell_ = nullptr;
  LifeLine* life_ = nullptr;
  SignalLine* lines_ = nullptr;
  std::span<std::byte> bytes_;
  int32_t num_ranks_ = 0;
};

// Over everything in a shape that must agree.
uint64_t hash(const Shape& shape);

}  // namespace wideep::fabric
