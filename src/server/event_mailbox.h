// From the engine's thread to the event loop: the engine only copies an event and goes on; the loop
// encodes and writes. All events of one step cost one wake-up.
#pragma once

#include "engine/request.h"
#include "net/event_loop.h"

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace wideep::server {

// Who gets events, on the loop.
class EventReceiver {
 public:
  virtual ~EventReceiver() = default;
  virtual void on_event(size_t choice_index, const engine::RequestEvent& event) = 0;
};

// Bounded by the engine: a sequence has at most one event for each of its steps, and receivers that
// cannot pass theirs on cancel the sequence. Thread: push() and close() from any.
class EventMailbox : public std::enable_shared_from_this<EventMailbox> {
 public:
  explicit EventMailbox(net::EventLoop& loop) : loop_(loop) {}

  void push(std::shared_ptr<EventReceiver> receiver,
            size_t choice_index,
            const engine::RequestEvent& event);
  // Drops what is queued and everything that still comes.
  void close();

 private:
  struct Letter {
    std::shared_ptr<EventReceiver> receiver;  // shared: the engine may speak last
    size_t choice_index;
    engine::RequestEvent event;
  };

  void deliver();

  net::EventLoop& loop_;
  std::mutex mutex_;
  std::vector<Letter> letters_;
  bool closed_ = false;
};

}  // namespace wideep::server
