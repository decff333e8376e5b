#include "http/exchange.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace wideep::http {
namespace {

constexpr std::string_view kPing = ": ping\n\n";

}  // namespace

Response event_stream_head(Headers headers) {
  headers.set("content-type", "text/event-stream; charset=utf-8");
  headers.set("cache-control", "no-cache");
  headers.set("x-accel-buffering", "no");  // asks nginx not to hold events back
  return Response{.status = 200, .headers = std::move(headers), .body = {}};
}

bool Exchange::send(const Response& response) {
  {
    const std::scoped_lock lock(mutex_);
    if (phase_ != Phase::kWaiting) return false;
    phase_ = Phase::kFinished;
    append_head(response, false);
    if (!options_.is_head_request) output_ += response.body;
  }
  release_callbacks();
  options_.wake();
  return true;
}

bool Exchange::begin(const Response& head) {
  {
    const std::scoped_lock lock(mutex_);
    if (phase_ != Phase::kWaiting) return false;
    begin_locked(head);
  }
  options_.wake();
  return true;
}

WriteResult Exchange::write(std::string_view bytes) {
  {
    const std::scoped_lock lock(mutex_);
    if (gone_ || phase_ != Phase::kStreaming) return WriteResult::kGone;
    if (output_.size() + in_flight_ + bytes.size() > options_.buffer_bytes_max) {
      return WriteResult::kFull;
    }
    append_part(bytes);
  }
  options_.wake();
  return WriteResult::kTaken;
}

void Exchange::finish() {
  {
    const std::scoped_lock lock(mutex_);
    if (phase_ != Phase::kStreaming) return;
    phase_ = Phase::kFinished;
    if (chunked_ && !options_.is_head_request) output_ += "0\r\n\r\n";
  }
  release_callbacks();
  options_.wake();
}

void Exchange::abort() {
  {
    const std::scoped_lock lock(mutex_);
    if (phase_ == Phase::kFinished) return;
    phase_ = Phase::kFinished;
    aborted_ = true;
  }
  release_callbacks();
  options_.wake();
}

void Exchange::answer_if_forgotten() {
  {
    const std::scoped_lock lock(mutex_);
    if (phase_ == Phase::kFinished) return;
  }
  if (!send(options_.render_error(500, "The request was dropped without an answer."))) abort();
}

void Exchange::keep_alive(Duration interval, Headers headers) {
  {
    const std::scoped_lock lock(mutex_);
    ping_interval_ = interval;
    event_headers_ = std::move(headers);
  }
  options_.wake();
}

void Exchange::on_disconnect(std::function<void()> callback) {
  {
    const std::scoped_lock lock(mutex_);
    if (phase_ == Phase::kFinished && !gone_) return;
    if (!gone_) {
      disconnect_callback_ = std::move(callback);
      return;
    }
  }
  callback();
}

void Exchange::on_writable(std::function<void()> callback) {
  std::function<void()> ready;
  {
    const std::scoped_lock lock(mutex_);
    writable_callback_ = std::move(callback);
    ready = take_writable_locked();
  }
  if (ready) ready();
}

size_t Exchange::buffered() const {
  const std::scoped_lock lock(mutex_);
  return output_.size() + in_flight_;
}

bool Exchange::is_gone() const {
  const std::scoped_lock lock(mutex_);
  return gone_;
}

std::string Exchange::take_output() {
  const std::scoped_lock lock(mutex_);
  in_flight_ = output_.size();
  bytes_sent_ += static_cast<int64_t>(in_flight_);
  return std::exchange(output_, {});
}

void Exchange::output_written() {
  std::function<void()> ready;
  {
    const std::scoped_lock lock(mutex_);
    in_flight_ = 0;
    ready = take_writable_locked();
  }
  if (ready) ready();
}

bool Exchange::is_finished() const {
  const std::scoped_lock lock(mutex_);
  return phase_ == Phase::kFinished && output_.empty() && in_flight_ == 0;
}

bool Exchange::needs_reset() const {
  const std::scoped_lock lock(mutex_);
  return ends_by_close_ && (aborted_ || gone_);
}

bool Exchange::may_keep_alive() const {
  const std::scoped_lock lock(mutex_);
  return keep_alive_ && !aborted_ && !gone_;
}

Duration Exchange::ping_interval() const {
  const std::scoped_lock lock(mutex_);
  return phase_ == Phase::kFinished ? Duration{0} : ping_interval_;
}

void Exchange::ping() {
  const std::scoped_lock lock(mutex_);
  if (gone_ || phase_ == Phase::kFinished) return;
  if (phase_ == Phase::kWaiting) begin_locked(event_stream_head(event_headers_));
  append_part(kPing);
}

void Exchange::mark_gone() {
  std::function<void()> callback;
  std::function<void()> ready;
  {
    const std::scoped_lock lock(mutex_);
    if (gone_) return;
    gone_ = true;
    callback = std::exchange(disconnect_callback_, nullptr);
    ready = take_writable_locked();
  }
  if (callback) callback();
  if (ready) ready();
}

int Exchange::status() const {
  const std::scoped_lock lock(mutex_);
  return status_;
}

int64_t Exchange::bytes_sent() const {
  const std::scoped_lock lock(mutex_);
  return bytes_sent_;
}

void Exchange::append_head(const Response& response, bool is_stream) {
  status_ = response.status;
  const bool has_body = response.status >= 200 && response.status != 204 && response.status != 304;
  chunked_ = is_stream && has_body && !options_.is_http_1_0;
  ends_by_close_ = is_stream && has_body && options_.is_http_1_0;
  keep_alive_ = options_.keep_alive && !ends_by_close_ &&
                !equal_ignoring_case(response.headers.get("connection"), "close");
  output_.append("HTTP/1.1 ").append(std::to_string(response.status)).append(" ");
  output_.append(reason_phrase(response.status)).append("\r\n");
  for (const Header& field : response.headers) {
    if (!is_framing_header(field.name)) append_header_field(output_, field.name, field.value);
  }
  if (chunked_) {
    output_ += "transfer-encoding: chunked\r\n";
  } else if (has_body && !is_stream) {
    append_header_field(output_, "content-length", std::to_string(response.body.size()));
  }
  if (!keep_alive_) {
    output_ += "connection: close\r\n";
  } else if (options_.is_http_1_0) {
    output_ += "connection: keep-alive\r\n";
  }
  output_ += "\r\n";
}

void Exchange::append_part(std::string_view bytes) {
  if (bytes.empty() || options_.is_head_request) return;
  if (!chunked_) {
    output_ += bytes;
    return;
  }
  std::array<char, 2 * sizeof(size_t)> size;
  const char* end = std::to_chars(size.begin(), size.end(), bytes.size(), 16).ptr;
  output_.append(std::string_view(size.begin(), end)).append("\r\n");
  output_.append(bytes).append("\r\n");
}

void Exchange::begin_locked(const Response& head) {
  phase_ = Phase::kStreaming;
  append_head(head, true);
  append_part(head.body);
}

std::function<void()> Exchange::take_writable_locked() {
  const bool is_ready = gone_ || output_.size() + in_flight_ <= options_.buffer_bytes_max / 2;
  return is_ready ? std::exchange(writable_callback_, nullptr) : nullptr;
}

// What the callbacks hold (often a Responder) must not live as long as the connection.
void Exchange::release_callbacks() {
  std::function<void()> disconnect;
  std::function<void()> writable;
  const std::scoped_lock lock(mutex_);
  disconnect.swap(disconnect_callback_);
  writable.swap(writable_callback_);
}

}  // namespace wideep::http
