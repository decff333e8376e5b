#include "http/socket_pump.h"

#include "base/check.h"

#include <chrono>
#include <utility>

namespace wideep::http {

using net::error_code;

namespace {

// A server that is called and gives no sign of life for so long has vanished with its machine.
constexpr std::chrono::seconds kServerSilenceMax{8};

}  // namespace

SocketPump::SocketPump(net::Socket socket) : socket_(std::move(socket)), timer_(executor()) {
  error_code ec;
  if (socket_.is_open()) socket_.non_blocking(true, ec);
}

void SocketPump::start_connect(const net::Protocol::endpoint& endpoint) {
  connecting_ = true;
  socket_.async_connect(endpoint, [self = shared_from_this()](error_code ec) {
    self->connecting_ = false;
    if (!ec) self->socket_.non_blocking(true, ec);
    if (ec) {
      self->read_closed_ = true;
      self->write_failed_ = true;
    } else {
      net::set_no_delay(self->socket_);
      net::notice_silence(self->socket_, kServerSilenceMax);
      net::notice_lost_data(self->socket_, kServerSilenceMax);
    }
    self->resume();
  });
}

void SocketPump::start_read() {
  if (reading_ || read_closed_) return;
  reading_ = true;
  socket_.async_read_some(net::asio::buffer(read_buffer_),
                          [self = shared_from_this()](error_code ec, size_t num_bytes) {
                            self->reading_ = false;
                            if (ec) self->read_closed_ = true;
                            self->input_.append(self->read_buffer_.data(), num_bytes);
                            self->resume();
                          });
}

void SocketPump::start_write(std::string bytes) {
  WD_CHECK(writing_.empty());
  if (bytes.empty()) return;
  writing_ = std::move(bytes);
  written_ = 0;
  error_code ec;
  const size_t num_bytes = socket_.write_some(net::asio::buffer(writing_), ec);
  wrote(num_bytes, ec == net::asio::error::would_block ? error_code() : ec);
  if (is_writing()) continue_write();
}

void SocketPump::wrote(size_t num_bytes, error_code ec) {
  write_progress_at_ = std::chrono::steady_clock::now();
  written_ += num_bytes;
  bytes_written_ += static_cast<int64_t>(num_bytes);
  if (ec) write_failed_ = true;
  if (ec || written_ == writing_.size()) writing_.clear();
}

void SocketPump::continue_write() {
  const auto rest = net::asio::buffer(writing_) + written_;
  socket_.async_write_some(rest, [self = shared_from_this()](error_code ec, size_t num_bytes) {
    self->wrote(num_bytes, ec);
    if (self->is_writing()) return self->continue_write();
    self->resume();
  });
}

net::asio::awaitable<bool> SocketPump::wait_until(TimePoint deadline) {
  using net::asio::use_awaitable;
  if (!notified_) {
    deadline_ = deadline;
    arm_timer();
    co_await net::asio::async_initiate<const net::asio::use_awaitable_t<>, void()>(
        [this](auto handler) { waiter_ = std::move(handler); }, use_awaitable);
  }
  co_return std::exchange(notified_, false);
}

void SocketPump::arm_timer() {
  if (timer_at_ <= deadline_) return;  // it is set again when it ends
  timer_at_ = deadline_;
  timer_.expires_at(deadline_);
  timer_.async_wait([weak = weak_from_this()](error_code ec) {
    if (const auto self = weak.lock(); self && !ec) self->timer_ended();
  });
}

void SocketPump::timer_ended() {
  timer_at_ = TimePoint::max();
  if (!waiter_) return;
  if (std::chrono::steady_clock::now() < deadline_) return arm_timer();
  std::exchange(waiter_, nullptr)();
}

void SocketPump::notify() {
  if (listener_) {
    const auto listener = listener_;  // it may replace itself
    listener();
    return;
  }
  notified_ = true;
  if (waiter_) net::asio::post(executor(), std::exchange(waiter_, nullptr));
}

void SocketPump::resume() {
  if (listener_ || !waiter_) return notify();
  notified_ = true;
  std::exchange(waiter_, nullptr)();
}

void SocketPump::wake() {
  if (wake_posted_.exchange(true)) return;
  net::asio::post(executor(), [self = shared_from_this()] {
    self->wake_posted_ = false;
    self->resume();
  });
}

void SocketPump::shutdown_send() {
  error_code ec;
  socket_.shutdown(net::Socket::shutdown_send, ec);
}

void SocketPump::reset() {
  error_code ec;
  socket_.set_option(net::asio::socket_base::linger(true, 0), ec);
  close();
}

void SocketPump::close() {
  error_code ec;
  socket_.close(ec);
  timer_.cancel();
  timer_at_ = TimePoint::max();
  read_closed_ = true;
  write_failed_ = true;
  notify();
}

}  // namespace wideep::http
