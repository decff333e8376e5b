// Scrapes /metrics of every endpoint at a fixed pace and hands what it read to the picker.
//
// One call per endpoint is under way at most; what a tick's calls brought is published as one
// snapshot. An endpoint that does not answer keeps its old numbers, whose age tells
// (EndpointMetrics::updated). Ownership: must be gone before loop, client and picker. Thread:
// created and destroyed on the loop's thread or while it is not running.
#pragma once

#include "base/clock.h"
#include "epp/endpoint_picker.h"
#include "http/client.h"
#include "net/event_loop.h"

#include <chrono>
#include <cstdint>
#include <memory>

namespace wideep::epp {

struct ScraperOptions {
  std::chrono::milliseconds interval{50};
  std::chrono::milliseconds timeout{1'000};
  int64_t body_bytes_max = 4 << 20;
  std::string path = "/metrics";
};

class Scraper {
 public:
  Scraper(net::EventLoop& loop,
          http::Client& client,
          EndpointPicker& picker,
          ScraperOptions options,
          const Clock& clock);
  ~Scraper();

  int64_t num_errors() const;

 private:
  class Core;
  std::shared_ptr<Core> core_;  // shared with the calls and the timer under way
};

}  // namespace wideep::epp
