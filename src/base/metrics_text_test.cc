#include "base/metrics_text.h"

#include "base/metrics.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace wideep {
namespace {

TEST(MetricsText, ReadsWhatTheRegistryWrites) {
  MetricsRegistry registry;
  registry.gauge("a:load", "Load.", {{"rank", "0"}, {"sub_rank", "7"}}).set(1.5);
  registry.gauge("a:load", "Load.", {{"rank", "1"}, {"sub_rank", "8"}}).set(2);
  std::string text;
  registry.render(text);
  std::vector<std::string> ranks;
  for_each_sample(text, [&](const MetricSample& sample) {
    ranks.emplace_back(sample.label("rank").value_or("none"));
    EXPECT_FALSE(sample.label("other"));
  });
  EXPECT_EQ(ranks, (std::vector<std::string>{"0", "1"}));
  EXPECT_EQ(sum_of_samples(text, "a:load"), 3.5);
  EXPECT_FALSE(sum_of_samples(text, "b"));
}

TEST(MetricsText, SkipsWhatIsNoSample) {
  int num_samples = 0;
  for_each_sample("\n# HELP x\nname\nname{open 3\nname x\nok 1\n", [&](const MetricSample& sample) {
    EXPECT_EQ(sample.name, "ok");
    ++num_samples;
  });
  EXPECT_EQ(num_samples, 1);
}

}  // namespace
}  // namespace wideep
