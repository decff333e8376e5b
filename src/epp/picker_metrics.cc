#include "epp/picker_metrics.h"

#include <algorithm>
#include <array>
#include <chrono>

namespace wideep::epp {
namespace {

constexpr std::array kSecondsBounds = {.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1};
constexpr std::string_view kAttempts = "inference_extension_scheduler_attempts_total";
constexpr std::string_view kAttemptsHelp = "Requests that asked for an endpoint.";
constexpr std::string_view kDecisions = "llm_d_inference_scheduler_disagg_decision_total";
constexpr std::string_view kDecisionsHelp = "Requests by the way they were sent.";

// There is one pool.
Gauge& pool_gauge(MetricsRegistry& registry, std::string_view name, std::string_view help) {
  return registry.gauge(name, help, {{"name", "default"}});
}

}  // namespace

PickerMetrics::PickerMetrics()
    : succeeded_(registry_.counter(kAttempts, kAttemptsHelp, {{"status", "success"}})),
      refused_(registry_.counter(kAttempts, kAttemptsHelp, {{"status", "failure"}})),
      decode_only_(
          registry_.counter(kDecisions, kDecisionsHelp, {{"decision_type", "decode-only"}})),
      prefill_decode_(
          registry_.counter(kDecisions, kDecisionsHelp, {{"decision_type", "prefill-decode"}})),
      seconds_(registry_.histogram("inference_extension_scheduler_e2e_duration_seconds",
                                   "Time of a decision in seconds.",
                                   kSecondsBounds)),
      kv_usage_(pool_gauge(registry_,
                           "inference_pool_average_kv_cache_utilization",
                           "KV cache in use, 0 to 1: the mean over the endpoints.")),
      queue_size_(pool_gauge(registry_,
                             "inference_pool_average_queue_size",
                             "Waiting requests: the mean over the endpoints.")),
      running_(pool_gauge(registry_,
                          "inference_pool_average_running_requests",
                          "Running requests: the mean over the endpoints.")),
      num_ready_(pool_gauge(
          registry_, "inference_pool_ready_pods", "Endpoints that requests may be sent to.")),
      num_prefixes_(registry_.gauge("inference_extension_prefix_indexer_size",
                                    "Prefix blocks that some endpoint is believed to hold.")) {}

void PickerMetrics::on_pick(Outcome outcome, Duration duration) {
  seconds_.observe(std::chrono::duration<double>(duration).count());
  if (outcome == Outcome::kRefused) {
    refused_.add();
    return;
  }
  succeeded_.add();
  (outcome == Outcome::kDecodeOnly ? decode_only_ : prefill_decode_).add();
}

void PickerMetrics::render(const Snapshot& endpoints, int64_t num_prefixes, std::string& out) {
  EndpointMetrics sum;
  for (const Endpoint& endpoint : endpoints.endpoints) {
    sum.kv_cache_usage += endpoint.metrics.kv_cache_usage;
    sum.waiting += endpoint.metrics.waiting;
    sum.running += endpoint.metrics.running;
  }
  const auto count = static_cast<double>(endpoints.endpoints.size());
  const double divisor = std::max(count, 1.0);
  kv_usage_.set(sum.kv_cache_usage / divisor);
  queue_size_.set(sum.waiting / divisor);
  running_.set(sum.running / divisor);
  num_ready_.set(count);
  num_prefixes_.set(static_cast<double>(num_prefixes));
  registry_.render(out);
}

}  // namespace wideep::epp
