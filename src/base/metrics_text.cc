#include "base/metrics_text.h"

#include <algorithm>
#include <charconv>

namespace wideep {
namespace {

std::optional<MetricSample> parse_line(std::string_view line) {
  if (line.empty() || line.front() == '#') return std::nullopt;
  MetricSample sample;
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

}  // namespace

std::optional<std::string_view> MetricSample::label(std::string_view key) const {
  for (size_t at = labels.find(key); at != std::string_view::npos; at = labels.find(key, at + 1)) {
    const std::string_view rest = labels.substr(at + key.size());
    const bool is_whole_name = at == 0 || labels[at - 1] == ',' || labels[at - 1] == ' ';
    if (!is_whole_name || !rest.starts_with("=\"")) continue;
    const size_t close = rest.find('"', 2);
    return rest.substr(2, close == std::string_view::npos ? close : close - 2);
  }
  return std::nullopt;
}

void for_each_sample(std::string_view text, FunctionRef<void(const MetricSample&)> take) {
  while (!text.empty()) {
    const size_t line_end = std::min(text.find('\n'), text.size());
    if (const auto sample = parse_line(text.substr(0, line_end))) take(*sample);
    text.remove_prefix(std::min(line_end + 1, text.size()));
  }
}

std::optional<double> sum_of_samples(std::string_view text, std::string_view name) {
  std::optional<double> sum;
  for_each_sample(text, [&](const MetricSample& sample) {
    if (sample.name == name) sum = sum.value_or(0) + sample.value;
  });
  return sum;
}

}  // namespace wideep
