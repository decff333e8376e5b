// modules: http
// A stream of server-sent events gives the same events however it is cut.
#include "base/check.h"
#include "http/sse.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace {

std::string events_of(std::string_view text, size_t piece) {
  wideep::http::EventParser parser(256);
  std::string seen;
  for (size_t at = 0; at < text.size(); at += piece) {
    const auto status = parser.feed(text.substr(at, piece), [&](const wideep::http::Event& event) {
      WD_CHECK(event.data.size() <= 256);
      seen += event.type + '\1' + event.data + '\1' + event.id + '\2';
    });
    if (!status) return seen + "refused";
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  WD_CHECK(events_of(text, 1) == events_of(text, size + 1));
  return 0;
}
