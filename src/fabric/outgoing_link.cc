#include "fabric/outgoing_link.h"

#include <algorithm>

namespace wideep::fabric {
namespace {

constexpr size_t kGatherBytes = 64 << 10;  // puts are sent when so many have gathered
constexpr int kBeatsToWake = 4;
constexpr size_t kDirectBytes = 16 << 10;  // a longer payload is not copied into the queue first

uint16_t wire_rank(RankId rank) {
  return static_cast<uint16_t>(index(rank));
}

}  // namespace

OutgoingLink::OutgoingLink(std::unique_ptr<Stream> stream, std::function<void(bool)> on_backlog)
    : stream_(std::move(stream)), on_backlog_(std::move(on_backlog)) {
  queue_.reserve(2 * kGatherBytes);
}

void OutgoingLink::put(RankId to, int64_t offset, std::span<const std::byte> bytes) {
  const std::scoped_lock lock(mutex_);
  do {
    const auto piece = bytes.first(std::min(bytes.size(), static_cast<size_t>(kPutBytesMax)));
    put_piece(to, offset, piece);
    offset += std::ssize(piece);
    bytes = bytes.subspan(piece.size());
  } while (!bytes.empty());
  if (queue_.size() - begin_ >= kGatherBytes) push();
  update_backlog();
}

void OutgoingLink::put_piece(RankId to, int64_t offset, std::span<const std::byte> bytes) {
  const FrameHeader header{.kind = FrameKind::kPut,
                           .to = wire_rank(to),
                           .payload_bytes = static_cast<uint32_t>(bytes.size()),
                           .where = static_cast<uint64_t>(offset)};
  if (bytes.size() < kDirectBytes) {
    append(header, bytes);
    return;
  }
  append(header, {});
  push();
  while (queue_.size() == begin_ && !bytes.empty() && !failure_) {
    const Result<size_t> count = stream_->write(bytes);
    if (!count) return fail(count.error());
    if (*count == 0) break;
    bytes = bytes.subspan(*count);
  }
  if (!failure_) queue_.insert(queue_.end(), bytes.begin(), bytes.end());
}

void OutgoingLink::signal(RankId to, ChannelId channel, const Signal& signal) {
  const std::scoped_lock lock(mutex_);
  append({.kind = FrameKind::kSignal,
          .to = wire_rank(to),
          .payload_bytes = kSignalBytes,
          .where = static_cast<uint64_t>(index(channel))},
         encode(signal));
  push();
  update_backlog();
}

void OutgoingLink::beat() {
  const std::scoped_lock lock(mutex_);
  append({.kind = FrameKind::kBeat}, {});
  push();
  update_backlog();
}

void OutgoingLink::control(const ControlMessage& message) {
  const std::scoped_lock lock(mutex_);
  append(
      {.kind = FrameKind::kControl,
       .where = static_cast<uint64_t>(message.kind) << 32 | static_cast<uint32_t>(message.about)},
      {});
  // So short a message would not wake the receiver (group_control.cc): beats fill it up.
  for (int i = 0; i < kBeatsToWake; ++i)
    append({.kind = FrameKind::kBeat}, {});
  push();
  update_backlog();
}

Status OutgoingLink::flush() {
  const std::scoped_lock lock(mutex_);
  push();
  update_backlog();
  if (failure_) return std::unexpected(*failure_);
  return {};
}

Status OutgoingLink::finish(const WaitLimit& limit) {
  for (;;) {
    WD_TRY(flush());
    if (queued_bytes() == 0) return {};
    if (!limit.await(fd(), POLLOUT))
      return error(ErrorCode::kTimeout, "{} bytes were not taken", queued_bytes());
  }
}

void OutgoingLink::append(const FrameHeader& header, std::span<const std::byte> payload) {
  if (failure_) return;
  const auto bytes = encode(header);
  queue_.insert(queue_.end(), bytes.begin(), bytes.end());
  queue_.insert(queue_.end(), payload.begin(), payload.end());
  if (header.kind != FrameKind::kPut && header.kind != FrameKind::kSignal) return;
  bytes_sent_.fetch_add(bytes.size() + header.payload_bytes, std::memory_order_relaxed);
  frames_sent_.fetch_add(1, std::memory_order_relaxed);
}

// As much of the queue as the socket takes.
void OutgoingLink::push() {
  while (begin_ < queue_.size() && !failure_) {
    const Result<size_t> count = stream_->write(std::span(queue_).subspan(begin_));
    if (!count) return fail(count.error());
    if (*count == 0) break;
    begin_ += *count;
  }
  // What is left moves to the front once that is cheap.
  if (begin_ >= queue_.size() - begin_) {
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(begin_));
    begin_ = 0;
  }
}

void OutgoingLink::fail(const Error& failure) {
  failure_ = failure;
  queue_.clear();
  begin_ = 0;
}

// Gathered puts that no signal has sent yet are no backlog, but nothing is lost by sending them.
void OutgoingLink::update_backlog() {
  const size_t queued = queue_.size() - begin_;
  queued_bytes_.store(static_cast<int64_t>(queued), std::memory_order_relaxed);
  const bool has_backlog = queued > 0;
  if (has_backlog == has_backlog_) return;
  has_backlog_ = has_backlog;
  on_backlog_(has_backlog);
}

WireCounters OutgoingLink::counters() const {
  return {.bytes_sent = bytes_sent_.load(std::memory_order_relaxed),
          .frames_sent = frames_sent_.load(std::memory_order_relaxed)};
}

}  // namespace wideep::fabric
