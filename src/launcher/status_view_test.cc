#include "launcher/status_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::launcher {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string metrics(int tokens, int expert_rows) {
  return fmt::format(
      "vllm:num_requests_running{{engine=\"0\"}} 2\n"
      "vllm:kv_cache_usage_perc 0.25\n"
      "vllm:generation_tokens_total {}\n"
      "wideep:expert_rows_total{{expert=\"0\"}} {}\n",
      tokens, expert_rows);
}

struct Shown {
  Shown() {
    plan.members = {{"d-0", "d", 0, Member::Kind::kRank, {}},
                    {"d-1", "d", 1, Member::Kind::kRank, {}},
                    {"gateway", "gateway", 0, Member::Kind::kGateway, {}}};
    plan.ranks = {{.name = "d-0", .member = 0, .sidecar = {}},
                  {.name = "d-1", .member = 1, .sidecar = {}}};
    groups = {{.name = "d", .state = GroupState::kReady},
              {.name = "gateway", .state = GroupState::kReady}};
    reports.resize(3);
  }

  void at(int second, const std::string& first, const std::string& other) {
    reports[0] = {
        .healthy = true, .metrics = first, .metrics_time = TimePoint(std::chrono::seconds(second))};
    reports[1] = {.healthy = false,
                  .metrics = other,
                  .metrics_time = TimePoint(std::chrono::seconds(second))};
  }

  Deployment plan;
  std::vector<GroupStatus> groups;
  std::vector<MemberReport> reports;
};

TEST(StatusView, TellsRatesBetweenTwoLooks) {
  Shown shown;
  StatusView view(shown.plan);
  shown.at(10, metrics(100, 10), metrics(100, 10));
  EXPECT_THAT(view.summary(shown.groups, shown.reports), HasSubstr("0 generated"));
  shown.at(12, metrics(160, 40), metrics(100, 30));
  const std::string text = view.summary(shown.groups, shown.reports);
  EXPECT_THAT(text, HasSubstr("d ready, 0 prompt and 30 generated tokens/s, KV 25 %"));
  EXPECT_THAT(text, HasSubstr("expert balance 0.83"));  // 15 and 10 rows a second: 12.5 / 15
  EXPECT_THAT(text, HasSubstr("gateway ready"));
  // The same metrics once more change nothing.
  EXPECT_EQ(view.summary(shown.groups, shown.reports), text);
}

TEST(StatusView, ShowsEachRankAndWhyAGroupRests) {
  Shown shown;
  StatusView view(shown.plan);
  shown.groups[0].state = GroupState::kBackingOff;
  shown.groups[0].num_restarts = 2;
  shown.groups[0].last_failure = "d-1: killed by SIGKILL";
  const auto lines = view.lines(shown.groups, shown.reports);
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_THAT(lines[0], HasSubstr("backing off, 2 restarts (d-1: killed by SIGKILL)"));
  EXPECT_THAT(lines[1], HasSubstr("d-0"));
  EXPECT_EQ(lines[3], "gateway ready");
}

TEST(StatusView, ACounterThatWentBackIsARankThatWasStartedAgain) {
  Shown shown;
  StatusView view(shown.plan);
  shown.at(10, metrics(100, 10), "");
  view.lines(shown.groups, shown.reports);
  shown.at(12, metrics(3, 1), "");
  EXPECT_THAT(view.summary(shown.groups, shown.reports), HasSubstr("and 0 generated"));
}

}  // namespace
}  // namespace wideep::launcher
