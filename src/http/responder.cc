#include "http/responder.h"

#include "http/exchange.h"

#include <utility>

namespace wideep::http {

struct Responder::Handle {
  explicit Handle(std::shared_ptr<Exchange> shared) : exchange(std::move(shared)) {}

  ~Handle() { exchange->answer_if_forgotten(); }

  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  const std::shared_ptr<Exchange> exchange;  // shared with the connection
};

Responder::Responder(std::shared_ptr<Exchange> exchange)
    : handle_(std::make_shared<Handle>(std::move(exchange))) {}

bool Responder::send(const Response& response) {
  return handle_->exchange->send(response);
}

bool Responder::begin(const Response& head) {
  return handle_->exchange->begin(head);
}

bool Responder::begin_events(Headers headers) {
  return handle_->exchange->begin(event_stream_head(std::move(headers)));
}

WriteResult Responder::write(std::string_view bytes) {
  return handle_->exchange->write(bytes);
}

void Responder::finish() {
  handle_->exchange->finish();
}

void Responder::abort() {
  handle_->exchange->abort();
}

void Responder::keep_alive(Duration interval, Headers headers) {
  handle_->exchange->keep_alive(interval, std::move(headers));
}

void Responder::on_disconnect(std::function<void()> callback) {
  handle_->exchange->on_disconnect(std::move(callback));
}

void Responder::on_writable(std::function<void()> callback) {
  handle_->exchange->on_writable(std::move(callback));
}

size_t Responder::buffered() const {
  return handle_->exchange->buffered();
}

size_t Responder::buffer_bytes_max() const {
  return handle_->exchange->buffer_bytes_max();
}

bool Responder::is_gone() const {
  return handle_->exchange->is_gone();
}

}  // namespace wideep::http
