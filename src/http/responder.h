// How a handler answers: at once with a whole response, or as a stream from any thread.
//
// A Responder is a handle; copies answer the same request. When the last copy goes without an
// answer the client gets a 500, or a cut stream if one had begun. Thread: every method, from any.
#pragma once

#include "base/clock.h"
#include "http/message.h"

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace wideep::http {

class Exchange;

enum class WriteResult {
  kTaken,
  kFull,  // the stream's buffer is at its limit: nothing was taken, the client reads too slowly
  kGone,  // the client has left, or the response is finished already
};

class Responder {
 public:
  explicit Responder(std::shared_ptr<Exchange> exchange);

  // Answers with a whole response. False if an answer had begun before: nothing is sent then.
  bool send(const Response& response);

  // Begins a stream: `head.body` is its first part. False as for send().
  bool begin(const Response& head);
  // Begins a stream of server-sent events.
  bool begin_events(Headers headers = {});
  // The next part of the stream. What fits below the buffer limit is taken whole or not at all.
  WriteResult write(std::string_view bytes);
  // Ends the stream well.
  void finish();
  // Cuts the connection, so that the client can tell that the stream is not complete.
  void abort();

  // For event streams with long silences: whenever nothing was written for `interval`, a comment
  // goes out. If no answer has begun by then, begin_events(headers) comes first.
  void keep_alive(Duration interval, Headers headers = {});

  // Calls `callback` once if the client leaves before the answer is complete: on the server's
  // thread, or at once if it has left already. One callback per request; a second replaces it.
  void on_disconnect(std::function<void()> callback);
  // Calls `callback` once, as soon as at most half of the stream's buffer is in use (or the client
  // is gone): on the server's thread, or at once.
  void on_writable(std::function<void()> callback);

  // Bytes taken and not yet given to the kernel.
  size_t buffered() const;
  size_t buffer_bytes_max() const;
  bool is_gone() const;

 private:
  struct Handle;
  std::shared_ptr<Handle> handle_;  // shared by the copies; its end notices a missing answer
};

}  // namespace wideep::http
