// Takes the calls at a listener and hears what each caller says first, on a thread of its own: one
// who says nothing, or something else, holds up nobody and is turned away.
//
// Thread: one at a time. The destructor cuts off those who are still being heard.
#pragma once

#include "base/result.h"
#include "fabric/event.h"
#include "fabric/stream.h"
#include "fabric/tls.h"

#include <poll.h>

#include <array>
#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace wideep::fabric {

struct ReceptionOptions {
  int listener = -1;  // borrowed
  std::string name;   // for the log: whose callers they are
  std::optional<PresharedKey> key;
  TcpOptions tcp;
  Duration patience = std::chrono::seconds{5};  // with one caller
  int heard_max = 128;                          // at the same time; the others wait in the kernel
};

// Who has been heard.
struct Guest {
  std::unique_ptr<Stream> stream;
  std::string words;
};

class Reception {
 public:
  // The first words on a stream: reads exactly those. An error turns the caller away.
  using Hear = std::function<Result<std::string>(Stream& stream, TimePoint deadline)>;

  static Result<std::unique_ptr<Reception>> open(ReceptionOptions options, Hear hear);
  Reception(ReceptionOptions options, Hear hear, Event heard);
  ~Reception();

  // take() has something to do when one of these has an event.
  std::array<pollfd, 2> polled() const;
  // Lets callers in to be heard; gives out those who have been. An error: no more calls can be
  // taken.
  Result<std::vector<Guest>> take();
  // One more whom the user of this has turned away.
  void refuse(const Error& reason);

 private:
  struct Caller {
    UniqueFd socket;  // a second descriptor, to cut it off
    std::atomic<bool> is_heard = false;
    Result<Guest> guest;
    std::thread thread;
  };

  bool is_full() const { return std::ssize(callers_) >= options_.heard_max; }

  Status let_in();
  Result<Guest> hear_words(UniqueFd socket) const;

  const ReceptionOptions options_;
  const Hear hear_;
  const Event heard_;  // somebody has been heard
  std::list<Caller> callers_;
  int64_t num_refused_ = 0;
};

}  // namespace wideep::fabric
