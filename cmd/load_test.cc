#include "cmd/load.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace wideep::cmd {
namespace {

using std::chrono::milliseconds;

CompletionResult result(int ttft_ms, int gap_ms, int tokens) {
  CompletionResult one;
  one.first_token = milliseconds(ttft_ms);
  one.gaps.assign(static_cast<size_t>(tokens - 1), milliseconds(gap_ms));
  one.total = one.first_token + milliseconds(gap_ms * (tokens - 1));
  one.prompt_tokens = 10;
  one.completion_tokens = tokens;
  return one;
}

double number(const Json& report, const char* key) {
  return report.find(key)->as_double().value();
}

TEST(LoadReport, HasTheKeysAndDefinitionsOfVllm) {
  LoadRun run;
  run.duration_s = 2;
  run.results = {result(100, 10, 5), result(300, 20, 3), {}};
  run.results[2].error = "HTTP 503: full";
  const Json report = load_report(run, {.ttft = 200}, {99});
  EXPECT_EQ(number(report, "completed"), 2);
  EXPECT_EQ(number(report, "failed"), 1);
  EXPECT_EQ(number(report, "total_output_tokens"), 8);
  EXPECT_DOUBLE_EQ(number(report, "request_throughput"), 1.0);
  EXPECT_DOUBLE_EQ(number(report, "request_goodput"), 0.5);
  EXPECT_DOUBLE_EQ(number(report, "mean_ttft_ms"), 200);
  EXPECT_DOUBLE_EQ(number(report, "mean_tpot_ms"), 15);
  EXPECT_DOUBLE_EQ(number(report, "median_itl_ms"), 10);
  EXPECT_DOUBLE_EQ(number(report, "p99_e2el_ms"), 140 + 0.99 * 200);
  EXPECT_NE(load_table(report, {99}).find("2 completed, 1 failed"), std::string::npos);
}

TEST(Arrivals, HaveTheRateThatWasAsked) {
  LoadOptions options;
  options.request_rate = 50;
  const auto times = arrival_times(options, 5000);
  EXPECT_NEAR(times.back(), 100, 5);
  EXPECT_TRUE(std::ranges::is_sorted(times));
  options.request_rate = std::numeric_limits<double>::infinity();
  EXPECT_EQ(arrival_times(options, 3), (std::vector<double>{0, 0, 0}));
}

TEST(Percentile, InterpolatesLinearly) {
  EXPECT_DOUBLE_EQ(percentile({4, 1, 3, 2}, 50), 2.5);
  EXPECT_DOUBLE_EQ(percentile({}, 50), 0);
}

TEST(Goodput, ReadsPairsAndRefusesOthers) {
  const auto goal = Goodput::parse({"ttft:200", "tpot:50.5"});
  ASSERT_TRUE(goal);
  EXPECT_EQ(goal->tpot, 50.5);
  EXPECT_FALSE(Goodput::parse({"latency:3"}));
  EXPECT_FALSE(Goodput::parse({"ttft"}));
}

TEST(ServerUrl, TakesWhatPeoplePaste) {
  EXPECT_EQ(ServerUrl::parse("http://localhost:8000/v1")->target("/v1/models"), "/v1/models");
  EXPECT_EQ(ServerUrl::parse("http://h:1/a/")->target("/v1"), "/a/v1");
  EXPECT_EQ(ServerUrl::parse("h")->address.port, 80);
  EXPECT_TRUE(ServerUrl::parse("unix:/run/x.sock")->address.is_unix());
  EXPECT_FALSE(ServerUrl::parse("https://h"));
}

}  // namespace
}  // namespace wideep::cmd
