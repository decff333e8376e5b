// Everything that this rank sends to one other node, over one connection, in order.
//
// Puts are gathered; a signal sends what has gathered. What the kernel does not take at once waits
// in a queue that the control thread empties. After the connection has failed, sends vanish: that
// the peers are lost is noticed by whoever waits for them.
//
// Thread: any.
#pragma once

#include "fabric/fabric.h"
#include "fabric/frame.h"
#include "fabric/stream.h"

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace wideep::fabric {

class OutgoingLink {
 public:
  // `on_backlog(true)`: the queue has bytes that wait for the socket; false: no more.
  OutgoingLink(std::unique_ptr<Stream> stream, std::function<void(bool)> on_backlog);

  int fd() const { return stream_->fd(); }

  void put(RankId to, int64_t offset, std::span<const std::byte> bytes);
  void signal(RankId to, ChannelId channel, const Signal& signal);
  void beat();
  void control(const ControlMessage& message);

  // The socket takes more. An error: the connection has ended.
  Status flush();
  // Blocks until the socket has taken everything. kTimeout.
  Status finish(const WaitLimit& limit);

  int64_t queued_bytes() const { return queued_bytes_.load(std::memory_order_relaxed); }

  WireCounters counters() const;

 private:
  // Under the lock.
  void append(const FrameHeader& header, std::span<const std::byte> payload);
  void put_piece(RankId to, int64_t offset, std::span<const std::byte> bytes);
  void push();
  void fail(const Error& failure);
  void update_backlog();

  std::mutex mutex_;
  std::unique_ptr<Stream> stream_;
  std::function<void(bool)> on_backlog_;
  std::vector<std::byte> queue_;  // from begin_ on
  size_t begin_ = 0;
  bool has_backlog_ = false;
  std::optional<Error> failure_;
  std::atomic<int64_t> queued_bytes_{0};
  std::atomic<uint64_t> bytes_sent_{0};
  std::atomic<uint64_t> frames_sent_{0};
};

}  // namespace wideep::fabric
