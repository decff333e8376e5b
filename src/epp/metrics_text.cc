#include "epp/metrics_text.h"

#include "base/metrics_text.h"

#include <array>
#include <charconv>
#include <cstdint>

namespace wideep::epp {
namespace {

constexpr double kValueMax = 0x1p53;

struct Names {
  std::string_view engine;
  std::string_view waiting;
  std::string_view running;
  std::string_view cache_usage;
  std::string_view cache_info;  // gauge whose labels hold block size and count
  std::string_view block_size_label;
  std::string_view num_blocks_label;
};

constexpr std::array<Names, 3> kNames = {{
    {"vllm", "vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc",
     "vllm:cache_config_info", "block_size", "num_gpu_blocks"},
    {"sglang", "sglang:num_queue_reqs", "sglang:num_running_reqs", "sglang:token_usage",
     "sglang:cache_config_info", "page_size", "num_pages"},
    {"trtllm-serve", "trtllm_num_requests_waiting", "trtllm_num_requests_running",
     "trtllm_kv_cache_utilization", "", "", ""},
}};

const Names& names_of(std::string_view engine) {
  for (const Names& names : kNames) {
    if (names.engine == engine) return names;
  }
  return kNames[0];
}

int64_t label_integer(const MetricSample& sample, std::string_view key) {
  const std::string_view text = sample.label(key).value_or("");
  int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value >= 0 && value <= INT32_MAX ? value : 0;
}

}  // namespace

bool parse_metrics_text(std::string_view text, std::string_view engine, EndpointMetrics* metrics) {
  const Names& names = names_of(engine);
  EndpointMetrics read{.updated = metrics->updated};
  int num_load = 0;
  int num_usage = 0;
  for_each_sample(text, [&](const MetricSample& sample) {
    // Scores are compared and counts become integers: NaN and the like have no place among them.
    if (!(sample.value >= 0 && sample.value <= kValueMax)) return;
    if (sample.name == names.waiting) {
      read.waiting += sample.value;
      ++num_load;
    } else if (sample.name == names.running) {
      read.running += sample.value;
      ++num_load;
    } else if (sample.name == names.cache_usage) {
      read.kv_cache_usage += sample.value;
      ++num_usage;
    } else if (sample.name == names.cache_info) {
      read.block_size = label_integer(sample, names.block_size_label);
      read.num_blocks += label_integer(sample, names.num_blocks_label);
    }
  });
  if (num_load == 0) return false;
  if (num_usage > 0) read.kv_cache_usage /= num_usage;
  *metrics = read;
  return true;
}

}  // namespace wideep::epp
