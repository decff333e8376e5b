// A descriptor by which one thread wakes another that waits for descriptors.
#pragma once

#include "base/result.h"
#include "fabric/unique_fd.h"

namespace wideep::fabric {

// Readable from set() to clear(). Thread: any.
class Event {
 public:
  // kExhausted: no descriptor is left.
  static Result<Event> create();

  Event() = default;  // none: never readable

  int fd() const { return fd_.get(); }

  void set() const;
  void clear() const;

 private:
  explicit Event(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace wideep::fabric
