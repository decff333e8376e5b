// Internal to http: one request being answered, between the handler's threads and the connection.
//
// The handler's side appends framed bytes under the lock; the connection takes them on its loop.
#pragma once

#include "http/responder.h"

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace wideep::http {

class Exchange {
 public:
  struct Options {
    bool is_head_request = false;
    bool is_http_1_0 = false;
    bool keep_alive = true;
    size_t buffer_bytes_max = 0;
    std::function<void()> wake;  // called without the lock, from any thread: there is output
    ErrorRenderer render_error;  // for the 500 of a handler that forgot to answer
  };

  explicit Exchange(Options options) : options_(std::move(options)) {}

  // The handler's side: see Responder.
  bool send(const Response& response);
  bool begin(const Response& head);
  WriteResult write(std::string_view bytes);
  void finish();
  void abort();
  void answer_if_forgotten();
  void keep_alive(Duration interval, Headers headers);
  void on_disconnect(std::function<void()> callback);
  void on_writable(std::function<void()> callback);
  size_t buffered() const;

  size_t buffer_bytes_max() const { return options_.buffer_bytes_max; }

  bool is_gone() const;

  // The connection's side.

  // Output to put on the socket; what was taken before is on its way now.
  std::string take_output();
  void output_written();
  // The answer is complete: everything was taken that will ever come.
  bool is_finished() const;
  // It was cut, and only a reset says so: where the end of the connection ends the answer.
  bool needs_reset() const;
  bool may_keep_alive() const;
  // Of the event stream; zero: none.
  Duration ping_interval() const;
  void ping();
  // The client has left: tells the handler, once.
  void mark_gone();
  int status() const;
  int64_t bytes_sent() const;

 private:
  enum class Phase { kWaiting, kStreaming, kFinished };

  void append_head(const Response& response, bool is_stream);
  void append_part(std::string_view bytes);
  void begin_locked(const Response& head);
  std::function<void()> take_writable_locked();
  void release_callbacks();

  const Options options_;
  mutable std::mutex mutex_;
  Phase phase_ = Phase::kWaiting;
  bool gone_ = false;
  bool aborted_ = false;
  std::string output_;
  size_t in_flight_ = 0;  // bytes taken by the connection and not yet written
  int status_ = 0;
  int64_t bytes_sent_ = 0;
  bool chunked_ = false;
  bool ends_by_close_ = false;
  bool keep_alive_ = true;
  Duration ping_interval_{0};
  Headers event_headers_;
  std::function<void()> disconnect_callback_;
  std::function<void()> writable_callback_;
};

// The head of a stream of server-sent events.
Response event_stream_head(Headers headers);

}  // namespace wideep::http
