#include "server/event_mailbox.h"

#include <utility>

namespace wideep::server {

void EventMailbox::push(std::shared_ptr<EventReceiver> receiver,
                        size_t choice_index,
                        const engine::RequestEvent& event) {
  {
    const std::scoped_lock lock(mutex_);
    if (closed_) return;
    letters_.push_back({std::move(receiver), choice_index, event});
    if (letters_.size() > 1) return;  // a delivery is on its way
  }
  loop_.post([self = shared_from_this()] { self->deliver(); });
}

void EventMailbox::close() {
  std::vector<Letter> dropped;
  const std::scoped_lock lock(mutex_);
  closed_ = true;
  dropped.swap(letters_);
}

void EventMailbox::deliver() {
  std::vector<Letter> letters;
  {
    const std::scoped_lock lock(mutex_);
    letters.swap(letters_);
  }
  for (const Letter& letter : letters)
    letter.receiver->on_event(letter.choice_index, letter.event);
}

}  // namespace wideep::server
