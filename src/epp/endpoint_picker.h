// The picker as a library: filter -> score -> pick over the present snapshot of endpoints. Used in
// process by the gateway, by Envoy over ext_proc, and by tests.
//
// Thread: any. pick() takes no global lock: the snapshot is immutable and swapped.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "epp/config.h"
#include "epp/picker_metrics.h"
#include "epp/plugin.h"

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace wideep::epp {

// Why a request gets no endpoint. The reason is what x-llm-d-request-dropped-reason says.
struct Refusal {
  int http_status = 503;
  std::string reason;  // "rejected-no-endpoints", "rejected-saturated"
  std::string message;
};

// What discovery knows of an endpoint; the rest is kept from snapshot to snapshot.
struct EndpointSpec {
  std::string name;
  net::Address address;
  Labels labels;
};

class EndpointPicker {
 public:
  EndpointPicker(PickerConfig config, const Clock& clock);

  // The heart: locate candidates, refuse what is shed, filter, score, pick, tell the plugins.
  // `subset`: host:port or host of the endpoints that are allowed, when the data plane names them.
  std::expected<Decision, Refusal> pick(const PickRequest& request,
                                        const std::vector<std::string>* subset = nullptr);

  // The set of endpoints is now this; metrics and counters of those that stay are kept.
  void set_endpoints(std::vector<EndpointSpec> specs);
  // What was scraped since the last call, as one new snapshot; endpoints that are gone are skipped.
  void set_metrics(std::span<const std::pair<int32_t, EndpointMetrics>> updates);
  std::shared_ptr<const Snapshot> snapshot() const;

  // Mean over the endpoints of max(queue / threshold, kv / threshold); endpoints with stale metrics
  // count as 1.
  double saturation() const;

  // Appends the text of /metrics.
  void render_metrics(std::string& out);

  const PickerConfig& config() const { return config_; }

 private:
  std::expected<Decision, Refusal> decide(const PickRequest& request,
                                          const std::vector<std::string>* subset);
  int32_t take_id();  // with mutex_ held
  std::shared_ptr<const Snapshot> candidates(const std::vector<std::string>* subset) const;
  bool is_sheddable(const PickRequest& request) const;

  PickerConfig config_;
  const Clock& clock_;
  PickerMetrics metrics_;
  mutable std::mutex
      mutex_;  // guards the pointer below and its writers; held for a copy of it only
  // Shared with the requests that decide on it.
  std::shared_ptr<const Snapshot> snapshot_ = std::make_shared<const Snapshot>();
  // Numbers of endpoints: the next one, and those that nobody has any more. Guarded by mutex_.
  int32_t next_id_ = 0;
  std::vector<int32_t> free_ids_;
};

}  // namespace wideep::epp
