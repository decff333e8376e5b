// What the picker did, and the endpoints as it sees them, under upstream's names. Models have no
// series of their own: their names are the clients' words. Thread: any.
#pragma once

#include "base/clock.h"
#include "base/metrics.h"
#include "epp/endpoint.h"

#include <cstdint>
#include <string>

namespace wideep::epp {

class PickerMetrics {
 public:
  PickerMetrics();

  enum class Outcome : uint8_t { kRefused, kDecodeOnly, kPrefillDecode };

  void on_pick(Outcome outcome, Duration duration);
  // Appends the text of /metrics. `num_prefixes`: hashes that the prefix indexes hold.
  void render(const Snapshot& endpoints, int64_t num_prefixes, std::string& out);

 private:
  MetricsRegistry registry_;
  Counter& succeeded_;
  Counter& refused_;
  Counter& decode_only_;
  Counter& prefill_decode_;
  Histogram& seconds_;
  Gauge& kv_usage_;
  Gauge& queue_size_;
  Gauge& running_;
  Gauge& num_ready_;
  Gauge& num_prefixes_;
};

}  // namespace wideep::epp
