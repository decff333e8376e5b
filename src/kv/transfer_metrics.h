// The figures of KV transfer under vLLM's names (vllm:nixl_*) where it has them, else wideep:kv_*.
// Thread: any.
#pragma once

#include "base/metrics.h"
#include "kv/kv_source.h"
#include "kv/lease_table.h"

#include <array>
#include <cstdint>
#include <mutex>
#include <string>

namespace wideep::kv {

class TransferMetrics {
 public:
  // `labels` of every series: model_name, engine.
  explicit TransferMetrics(MetricLabels labels);

  void on_pull(const PullOutcome& outcome);
  // Releases or heartbeats that did not reach the producer.
  void on_failed_notice(int64_t count);

  // Appends everything in Prometheus' text format.
  void render(const LeaseStats& leases, std::string& out);

 private:
  MetricsRegistry registry_;
  const MetricLabels labels_;
  Histogram& seconds_;
  Histogram& bytes_;
  Histogram& descriptors_;
  Counter& failed_transfers_;
  Counter& failed_notifications_;
  Counter& expired_;
  Gauge& leases_;
  Gauge& blocks_;
  Counter& granted_;
  Counter& refused_;
  std::array<Counter*, kNumTransports> transport_bytes_{};
  std::array<Counter*, kNumErrorCodes> failures_{};  // by error code
  std::mutex mutex_;  // guards last_: counters grow by the difference
  LeaseStats last_;
};

}  // namespace wideep::kv
