// Internal to http: a socket that a coroutine reads, writes and waits on.
//
// At most one connect, one read and one write are under way; the end of each wakes wait_until().
// The coroutine then looks at what has changed. So reading can go on while something else is
// awaited: that is how a peer that leaves is noticed. Pending operations keep the pump alive; who
// lets a coroutine wait must close() or notify() before the loop ends. Thread: the loop's, but for
// wake().
#pragma once

#include "base/clock.h"
#include "net/asio.h"

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>

namespace wideep::http {

class SocketPump : public std::enable_shared_from_this<SocketPump> {
 public:
  explicit SocketPump(net::Socket socket);

  void start_connect(const net::Protocol::endpoint& endpoint);

  bool is_connecting() const { return connecting_; }

  // Reads once, appending to input(). Nothing if a read is under way or the peer has closed.
  void start_read();

  // Read and not yet used; the user erases what it has used.
  std::string& input() { return input_; }

  // EOF or an error.
  bool read_closed() const { return read_closed_; }

  // Writes all of `bytes`: what the kernel takes at once before it returns, the rest later, and
  // only that wakes wait_until(). Not while is_writing().
  void start_write(std::string bytes);

  bool is_writing() const { return !writing_.empty(); }

  bool write_failed() const { return write_failed_; }

  // When the peer last took a byte.
  TimePoint write_progress_at() const { return write_progress_at_; }

  int64_t bytes_written() const { return bytes_written_; }

  // Until notify() or `deadline`; false for the latter. One coroutine at a time.
  net::asio::awaitable<bool> wait_until(TimePoint deadline);
  // The coroutine goes on soon, never inside this call.
  void notify();
  // Like notify(), from any thread. Many calls may cost one wake-up.
  void wake();

  // While set, notify() calls it instead: for a pump that no coroutine waits on.
  void set_listener(std::function<void()> listener) { listener_ = std::move(listener); }

  void shutdown_send();
  // Makes both directions fail, and notifies.
  void close();
  // The same, and the peer sees that it was cut.
  void reset();

  net::Socket& socket() { return socket_; }

  net::Socket::executor_type executor() { return socket_.get_executor(); }

 private:
  void continue_write();
  void wrote(size_t num_bytes, net::error_code ec);
  // What the loop calls at its top ends with this: the coroutine goes on at once.
  void resume();
  void arm_timer();
  void timer_ended();

  static constexpr size_t kReadBytes = 16 * 1024;

  net::Socket socket_;
  // Set for the earliest deadline since it last ended, not anew for every wait: most waits end long
  // before theirs.
  net::asio::steady_timer timer_;
  TimePoint timer_at_ = TimePoint::max();   // when it ends; max: it is not set
  TimePoint deadline_{};                    // of the wait under way
  std::move_only_function<void()> waiter_;  // the coroutine that waits
  std::function<void()> listener_;
  bool notified_ = false;
  std::atomic<bool> wake_posted_{false};
  bool connecting_ = false;

  std::string input_;
  std::array<char, kReadBytes> read_buffer_;
  bool reading_ = false;
  bool read_closed_ = false;

  std::string writing_;
  size_t written_ = 0;  // of writing_
  int64_t bytes_written_ = 0;
  bool write_failed_ = false;
  TimePoint write_progress_at_{};
};

}  // namespace wideep::http
