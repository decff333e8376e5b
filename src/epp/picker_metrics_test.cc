#include "epp/picker_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::epp {
namespace {

using ::testing::HasSubstr;

TEST(PickerMetrics, CountDecisionsAndAverageTheEndpoints) {
  PickerMetrics metrics;
  metrics.on_pick(PickerMetrics::Outcome::kRefused, std::chrono::microseconds(150));
  metrics.on_pick(PickerMetrics::Outcome::kDecodeOnly, std::chrono::microseconds(10));
  metrics.on_pick(PickerMetrics::Outcome::kPrefillDecode, std::chrono::microseconds(10));
  Snapshot endpoints;
  endpoints.endpoints.resize(2);
  endpoints.endpoints[0].metrics = {.waiting = 4, .running = 1, .kv_cache_usage = 0.5};
  std::string text;
  metrics.render(endpoints, 7, text);
  for (const char* line :
       {"inference_extension_scheduler_attempts_total{status=\"success\"} 2\n",
        "inference_extension_scheduler_attempts_total{status=\"failure\"} 1\n",
        "llm_d_inference_scheduler_disagg_decision_total{decision_type=\"decode-only\"} 1\n",
        "llm_d_inference_scheduler_disagg_decision_total{decision_type=\"prefill-decode\"} 1\n",
        "inference_extension_scheduler_e2e_duration_seconds_bucket{le=\"1e-04\"} 2\n",
        "inference_extension_scheduler_e2e_duration_seconds_count 3\n",
        "inference_pool_average_kv_cache_utilization{name=\"default\"} 0.25\n",
        "inference_pool_average_queue_size{name=\"default\"} 2\n",
        "inference_pool_average_running_requests{name=\"default\"} 0.5\n",
        "inference_pool_ready_pods{name=\"default\"} 2\n",
        "inference_extension_prefix_indexer_size 7\n"})
    EXPECT_THAT(text, HasSubstr(line));
  text.clear();
  metrics.render({}, 0, text);
  EXPECT_THAT(text, HasSubstr("inference_pool_average_queue_size{name=\"default\"} 0\n"));
}

}  // namespace
}  // namespace wideep::epp
