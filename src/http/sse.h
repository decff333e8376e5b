// Server-sent events: writing them, and reading them from a stream of bytes.
// Format: https://html.spec.whatwg.org/multipage/server-sent-events.html section 9.2.5.
#pragma once

#include "base/result.h"

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace wideep::http {

// Appends "data: ...\n\n"; data with line ends becomes several data lines of one event.
void append_event(std::string& out, std::string_view data);

struct Event {
  std::string type;  // "" is "message"
  std::string data;  // lines joined by '\n'
  std::string id;
};

// Thread: plain value.
class EventParser {
 public:
  explicit EventParser(size_t event_bytes_max = 16 * 1024 * 1024)
      : event_bytes_max_(event_bytes_max) {}

  // Calls `on_event` for every event that is complete now, in order. Lines may end in LF, CR or
  // CRLF; comments and unknown fields are skipped; events without data do not exist. kExhausted
  // when an event is longer than the limit; the parser is of no use after that.
  Status feed(std::string_view bytes, const std::function<void(const Event& event)>& on_event);

 private:
  void take_line(const std::function<void(const Event& event)>& on_event);

  size_t event_bytes_max_;
  std::string line_;
  Event event_;
  bool has_data_ = false;
  bool after_cr_ = false;
  bool first_line_ = true;
};

}  // namespace wideep::http
