#include "http/socket_pump.h"

#include "base/check.h"

#include <utility>

namespace wideep::http {

using net::error_code;

void SocketPump::start_connect(const net::Protocol::endpoint& endpoint) {
  connecting_ = true;
  socket_.async_connect(endpoint, [self = shared_from_this()](error_code ec) {
    self->connecting_ = false;
    if (ec) {
      self->read_closed_ = true;
      self->write_failed_ = true;
    } else {
      net::set_no_delay(self->socket_);
    }
    self->notify();
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
                            self->notify();
                          });
}

void SocketPump::start_write(std::string bytes) {
  WD_CHECK(writing_.empty());
  if (bytes.empty()) return;
  writing_ = std::move(bytes);
  written_ = 0;
  write_progress_at_ = std::chrono::steady_clock::now();
  continue_write();
}

void SocketPump::continue_write() {
  const auto rest = net::asio::buffer(writing_) + written_;
  socket_.async_write_some(rest, [self = shared_from_this()](error_code ec, size_t num_bytes) {
    self->write_progress_at_ = std::chrono::steady_clock::now();
    self->written_ += num_bytes;
    self->bytes_written_ += static_cast<int64_t>(num_bytes);
    if (ec) {
      self->write_failed_ = true;
    } else if (self->written_ < self->writing_.size()) {
      self->continue_write();
      return;
    }
    self->writing_.clear();
    self->notify();
  });
}

net::asio::awaitable<bool> SocketPump::wait_until(TimePoint deadline) {
  if (!notified_) {
    timer_.expires_at(deadline);
    error_code ec;
    co_await timer_.async_wait(net::asio::redirect_error(net::asio::use_awaitable, ec));
  }
  co_return std::exchange(notified_, false);
}

void SocketPump::notify() {
  if (listener_) {
    const auto listener = listener_;  // it may replace itself
    listener();
    return;
  }
  notified_ = true;
  timer_.cancel();
}

void SocketPump::wake() {
  if (wake_posted_.exchange(true)) return;
  net::asio::post(executor(), [self = shared_from_this()] {
    self->wake_posted_ = false;
    self->notify();
  });
}

void SocketPump::shutdown_send() {
  error_code ec;
  socket_.shutdown(net::Socket::shutdown_send, ec);
}

void SocketPump::close() {
  error_code ec;
  socket_.close(ec);
  read_closed_ = true;
  write_failed_ = true;
  notify();
}

}  // namespace wideep::http
