// Prometheus' text format, as far as a reader of samples needs it.
#pragma once

#include "base/function_ref.h"

#include <optional>
#include <string_view>

namespace wideep {

struct MetricSample {
  std::string_view name;
  std::string_view labels;  // between the braces, as written
  double value = 0;

  // The value of one label, without its quotes; escapes stay as they are.
  std::optional<std::string_view> label(std::string_view key) const;
};

// Calls `take` for every sample; comments and lines that are none are skipped. The views hold while
// `text` does.
void for_each_sample(std::string_view text, FunctionRef<void(const MetricSample&)> take);

// The sum of all samples of that name; nothing if there is none.
std::optional<double> sum_of_samples(std::string_view text, std::string_view name);

}  // namespace wideep
