#include "fabric/arena.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/rounding.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <ctime>

namespace wideep::fabric {
namespace {

constexpr uint64_t kMagic = 0x31616e6572614557;  // "WEarena1"
constexpr int64_t kLine = 64;
constexpr int64_t kPage = 4096;

// Not FUTEX_PRIVATE: the word is shared between processes.
void futex_wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void futex_wait(std::atomic<uint32_t>& word, uint32_t expected, Duration timeout) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(timeout);
  const timespec limit{.tv_sec = seconds.count(), .tv_nsec = (timeout - seconds).count()};
  syscall(SYS_futex, &word, FUTEX_WAIT, expected, &limit, nullptr, 0);
}

}  // namespace

// The fences pair: either the sleeper sees what was stored before ring, or the ringer sees that
// somebody sleeps.
void Bell::ring_if_asleep() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_relaxed) > 0) ring();
}

void Bell::ring() {
  tickets_.fetch_add(1, std::memory_order_release);
  futex_wake_all(tickets_);
}

void Bell::sleep_unless(FunctionRef<bool()> ready, Duration timeout) {
  const uint32_t ticket = tickets_.load(std::memory_order_acquire);
  sleepers_.fetch_add(1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!ready() && timeout > Duration{0}) futex_wait(tickets_, ticket, timeout);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

void SignalLine::store(uint64_t epoch, const Signal& signal) {
  for (size_t i = 0; i < signal.words.size(); ++i)
    words_[i].store(signal.words[i], std::memory_order_relaxed);
  count_.store(signal.count, std::memory_order_release);
  seq_.store(signal.seq, std::memory_order_release);
  epoch_.store(epoch, std::memory_order_release);
}

std::optional<Signal> SignalLine::load(uint64_t epoch) const {
  if (epoch_.load(std::memory_order_acquire) != epoch) return std::nullopt;
  Signal signal{.seq = seq_.load(std::memory_order_acquire),
                .count = count_.load(std::memory_order_acquire)};
  for (size_t i = 0; i < signal.words.size(); ++i)
    signal.words[i] = words_[i].load(std::memory_order_relaxed);
  return signal;
}

Arena::Arena(std::span<std::byte> memory, const Shape& shape) : num_ranks_(shape.num_ranks()) {
  WD_CHECK(std::ssize(memory) == bytes_for(shape));
  std::byte* at = memory.data();
  header_ = reinterpret_cast<ArenaHeader*>(at);
  bell_ = reinterpret_cast<Bell*>(at + kLine);
  life_ = reinterpret_cast<LifeLine*>(at + 2 * kLine);
  lines_ = reinterpret_cast<SignalLine*>(at + line_offset(shape, ChannelId{0}, RankId{0}));
  bytes_ = memory.subspan(static_cast<size_t>(bytes_offset(shape)));
}

int64_t Arena::bytes_for(const Shape& shape) {
  return bytes_offset(shape) + shape.arena_bytes;
}

int64_t Arena::bytes_offset(const Shape& shape) {
  const int64_t end = line_offset(shape, ChannelId{shape.num_channels}, RankId{0});
  return round_up(end, kPage);
}

int64_t Arena::line_offset(const Shape& shape, ChannelId channel, RankId source) {
  return (2 + shape.num_ranks() * (1 + int64_t{index(channel)}) + index(source)) * kLine;
}

void Arena::initialise(const Shape& shape, RankId rank, uint64_t shape_hash) {
  *header_ = {kMagic, shape.epoch, index(rank), shape_hash};
}

Status Arena::check(const Shape& shape, RankId rank, uint64_t shape_hash) const {
  const ArenaHeader header = *header_;
  if (header.magic == kMagic && header.epoch == shape.epoch && header.rank == index(rank) &&
      header.shape_hash == shape_hash)
    return {};
  return invalid_argument(
      "rank {} handed over memory of rank {}, epoch {}, shape {:016x}; expected epoch {}, {:016x}",
      index(rank), header.rank, header.epoch, header.shape_hash, shape.epoch, shape_hash);
}

uint64_t hash(const Shape& shape) {
  std::vector<int64_t> parts{static_cast<int64_t>(shape.epoch), shape.arena_bytes,
                             shape.num_channels};
  for (const NodeId node : shape.node_of)
    parts.push_back(index(node));
  return xxh64(std::as_bytes(std::span(parts)));
}

}  // namespace wideep::fabric
