#include "epp/metrics_text.h"

#include <array>
#include <charconv>
#include <optional>

namespace wideep::epp {
namespace {

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

struct Sample {
  std::string_view name;
  std::string_view labels;  // between the braces
  double value = 0;
};

std::optional<Sample> parse_line(std::string_view line) {
  if (line.empty() || line.front() == '#') return std::nullopt;
  Sample sample;
  const size_t name_end = line.find_first_of("{ ");
  if (name_end == std::string_view::npos) return std::nullopt;
  sample.name = line.substr(0, name_end);
  std::string_view rest = line.substr(name_end);
  if (rest.front() == '{') {
    const size_t close = rest.rfind('}');
    if (close == std::string_view::npos) return std::nullopt;
    sample.labels = rest.substr(1, close - 1);
    rest = rest.substr(close + 1);
  }
  while (!rest.empty() && rest.front() == ' ')
    rest.remove_prefix(1);
  const auto [end, code] = std::from_chars(rest.data(), rest.data() + rest.size(), sample.value);
  return code == std::errc{} ? std::optional(sample) : std::nullopt;
}

// The integer in label="123".
int64_t label_integer(std::string_view labels, std::string_view key) {
  for (size_t at = labels.find(key); at != std::string_view::npos; at = labels.find(key, at + 1)) {
    const std::string_view rest = labels.substr(at + key.size());
    const bool is_whole_name = at == 0 || labels[at - 1] == ',' || labels[at - 1] == ' ';
    if (!is_whole_name || !rest.starts_with("=\"")) continue;
    int64_t value = 0;
    std::from_chars(rest.data() + 2, rest.data() + rest.size(), value);
    return value;
  }
  return 0;
}

}  // namespace

bool parse_metrics_text(std::string_view text, std::string_view engine, EndpointMetrics* metrics) {
  const Names& names = names_of(engine);
  EndpointMetrics read{.updated = metrics->updated};
  int num_load = 0;
  int num_usage = 0;
  while (!text.empty()) {
    const size_t line_end = std::min(text.find('\n'), text.size());
    const auto sample = parse_line(text.substr(0, line_end));
    text.remove_prefix(std::min(line_end + 1, text.size()));
    if (!sample) continue;
    if (sample->name == names.waiting) {
      read.waiting += sample->value;
      ++num_load;
    } else if (sample->name == names.running) {
      read.running += sample->value;
      ++num_load;
    } else if (sample->name == names.cache_usage) {
      read.kv_cache_usage += sample->value;
      ++num_usage;
    } else if (sample->name == names.cache_info) {
      read.block_size = label_integer(sample->labels, names.block_size_label);
      read.num_blocks += label_integer(sample->labels, names.num_blocks_label);
    }
  }
  if (num_load == 0) return false;
  if (num_usage > 0) read.kv_cache_usage /= num_usage;
  *metrics = read;
  return true;
}

}  // namespace wideep::epp
