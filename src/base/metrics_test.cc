#include "base/metrics.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <thread>
#include <vector>

namespace wideep {
namespace {

std::string rendered(const MetricsRegistry& registry) {
  std::string out;
  registry.render(out);
  return out;
}

TEST(Metrics, PrintsHelpAndTypeOncePerFamily) {
  MetricsRegistry registry;
  registry.counter("requests_total", "Requests.", {{"code", "200"}}).add(2);
  registry.counter("requests_total", "Requests.", {{"code", "503"}}).add();
  registry.gauge("running", "Now running.").set(1.5);
  EXPECT_EQ(rendered(registry),
            "# HELP requests_total Requests.\n"
            "# TYPE requests_total counter\n"
            "requests_total{code=\"200\"} 2\n"
            "requests_total{code=\"503\"} 1\n"
            "# HELP running Now running.\n"
            "# TYPE running gauge\n"
            "running 1.5\n");
}

TEST(Metrics, HistogramBucketsAreCumulativeAndInclusive) {
  MetricsRegistry registry;
  static constexpr std::array kBounds = {0.5, 1.0, 5.0};
  Histogram& histogram = registry.histogram("wait_seconds", "Wait.", kBounds, {{"e", "0"}});
  for (const double value : {0.5, 0.75, 5.0, 9.0})
    histogram.observe(value);
  histogram.observe(std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(rendered(registry),
            "# HELP wait_seconds Wait.\n"
            "# TYPE wait_seconds histogram\n"
            "wait_seconds_bucket{e=\"0\",le=\"0.5\"} 1\n"
            "wait_seconds_bucket{e=\"0\",le=\"1\"} 2\n"
            "wait_seconds_bucket{e=\"0\",le=\"5\"} 3\n"
            "wait_seconds_bucket{e=\"0\",le=\"+Inf\"} 4\n"
            "wait_seconds_sum{e=\"0\"} 15.25\n"
            "wait_seconds_count{e=\"0\"} 4\n");
}

TEST(Metrics, EscapesLabelsAndHelpAsTheTextFormatAsks) {
  MetricsRegistry registry;
  registry.gauge("g", "a\\b\nc\"d", {{"model", "x\"y\\z\n\xFF"}}).set(1);
  EXPECT_EQ(rendered(registry),
            "# HELP g a\\\\b\\nc\"d\n"
            "# TYPE g gauge\n"
            "g{model=\"x\\\"y\\\\z\\n\xEF\xBF\xBD\"} 1\n");
}

TEST(Metrics, WritesSpecialValuesAsPrometheusSpellsThem) {
  MetricsRegistry registry;
  registry.gauge("a", "A.").set(std::numeric_limits<double>::infinity());
  registry.gauge("b", "B.").set(std::numeric_limits<double>::quiet_NaN());
  const std::string text = rendered(registry);
  EXPECT_NE(text.find("\na +Inf\n"), std::string::npos);
  EXPECT_NE(text.find("\nb NaN\n"), std::string::npos);
}

TEST(Metrics, TheSameNameAndLabelsAreTheSameMetric) {
  MetricsRegistry registry;
  Counter& first = registry.counter("a_total", "A.", {{"x", "1"}});
  EXPECT_EQ(&first, &registry.counter("a_total", "A.", {{"x", "1"}}));
  EXPECT_NE(&first, &registry.counter("a_total", "A.", {{"x", "2"}}));
}

TEST(Metrics, LosesNoUpdateFromManyThreads) {
  MetricsRegistry registry;
  static constexpr std::array kBounds = {1.0};
  Counter& counter = registry.counter("c_total", "C.");
  Histogram& histogram = registry.histogram("h", "H.", kBounds);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        counter.add();
        histogram.observe(2.0);
        if (i % 100 == 0) rendered(registry);
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(counter.value(), 4000U);
  EXPECT_EQ(histogram.count(), 4000U);
  EXPECT_EQ(histogram.sum(), 8000.0);
}

TEST(MetricsDeathTest, RefusesBadNamesAndMixedTypes) {
  MetricsRegistry registry;
  registry.gauge("x", "X.");
  EXPECT_DEATH(registry.counter("x", "X."), "type == type");
  EXPECT_DEATH(registry.gauge("1x", "X."), "is_name");
  EXPECT_DEATH(registry.gauge("y", "Y.", {{"a-b", ""}}), "is_name");
}

}  // namespace
}  // namespace wideep
