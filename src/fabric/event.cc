#include "fabric/event.h"

#include <sys/eventfd.h>

namespace wideep::fabric {

Result<Event> Event::create() {
  UniqueFd fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return error(ErrorCode::kExhausted, "no descriptor for an event");
  return Event(std::move(fd));
}

void Event::set() const {
  eventfd_write(fd_.get(), 1);
}

void Event::clear() const {
  eventfd_t ignored = 0;
  static_cast<void>(eventfd_read(fd_.get(), &ignored));
}

}  // namespace wideep::fabric
