// Two hosts and a cable between them that gets slow and is cut under load: nobody hangs, everybody
// names a rank of the other host within promise 2's time, and what only delays changes no bit.
#include "cable.h"
#include "exchange_rank.h"
#include "fabric/test_processes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <string>
#include <vector>

namespace wideep::ep {
namespace {

using fabric::Processes;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint16_t kPort = 7000;  // nobody else is in these namespaces
constexpr seconds kLiveness{3};   // the default
// A machine that others use may take so long to run us at all; what else would end a wait takes
// longer.
constexpr seconds kSlack{30};

class CutLink : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    auto made = Cable::make();
    if (!made) GTEST_SKIP() << "no network namespaces here: " << made.error().message;
    cable_ = *std::move(made);
  }

  // Ranks on hosts as group.nodes says, in cipher or not, as the parameter says.
  Status run_rank(const SimGroup& group,
                  int32_t rank,
                  Duration liveness,
                  const std::function<Status(Group&)>& body) const {
    const int host = group.nodes[static_cast<size_t>(rank)];
    WD_TRY(cable_->move_to(host));
    return take_part(group, rank,
                     {.leader = {.host = Cable::address(0), .port = kPort},
                      .host = Cable::address(host),
                      .in_cipher = GetParam(),
                      .liveness = liveness,
                      .real_nodes = true},
                     body);
  }

  // Ranks that exchange until something happens.
  std::unique_ptr<Processes> under_load(const SimGroup& group, Duration liveness) const {
    return std::make_unique<Processes>(group.scenario.num_ranks, [&, liveness](int32_t rank) {
      return run_rank(group, rank, liveness, [&](Group& joined) -> Status {
        fabric::processes_ready(rank);
        WD_TRY(run_scenario(group.scenario, joined.exchange(), joined.placement(), RankId{rank}));
        return {};
      });
    });
  }

  std::unique_ptr<Cable> cable_;
};

SimGroup endless_group() {
  SimGroup group = group_of(4);
  group.nodes = {0, 0, 1, 1};
  group.scenario.num_steps = 1'000'000;
  return group;
}

// Lets the ranks work for a while.
void wait_for(Duration duration) {
  poll(nullptr, 0, static_cast<int>(duration / milliseconds{1}));
}

void expect_others_named(Processes& processes, TimePoint cut) {
  for (int32_t rank = 0; rank < 4; ++rank) {
    const std::string outcome = processes.outcome(rank);
    const auto lost = [](int32_t other) {
      return testing::HasSubstr(fmt::format("rank {} lost", other));
    };
    const int32_t first_other = rank < 2 ? 2 : 0;
    EXPECT_THAT(outcome, testing::AnyOf(lost(first_other), lost(first_other + 1)))
        << "rank " << rank;
  }
  EXPECT_LT(real_clock().now() - cut, kLiveness * 4 / 3 + kSlack);
}

TEST_P(CutLink, IsNoticedOnBothSidesWhicheverMomentItIsCut) {
  Random random(GetParam() ? 1 : 2);
  const SimGroup group = endless_group();
  for (int round = 0; round < 4; ++round) {
    cable_->mend();
    const auto processes = under_load(group, kLiveness);
    processes->wait_until_ready();
    for (int i = 0; i < 4; ++i) {
      cable_->set_delay(std::chrono::microseconds{random.below(3000)});
      wait_for(milliseconds{random.below(60)});
    }
    cable_->cut();
    expect_others_named(*processes, real_clock().now());
  }
}

TEST_P(CutLink, ByTakingItsDeviceDownIsNoticedWithinTheDefaultDeadline) {
  const SimGroup group = endless_group();
  const auto processes = under_load(group, kLiveness);
  processes->wait_until_ready();
  const Status down = cable_->take_down(1);
  ASSERT_TRUE(down.has_value()) << down.error().message;
  expect_others_named(*processes, real_clock().now());
}

TEST_P(CutLink, ThatIsOnlySlowOrMendedInTimeChangesNoBit) {
  SimGroup group = group_of(4);
  group.nodes = {0, 0, 1, 1};
  group.scenario.num_steps = 60;
  const Rows expected = reference_rows(group.scenario);
  Processes processes(4, [&](int32_t rank) {
    return run_rank(group, rank, seconds{10}, [&](Group& joined) -> Status {
      fabric::processes_ready(rank);
      return play_and_compare(group, joined, expected);
    });
  });
  processes.wait_until_ready();
  Random random(7);
  for (int i = 0; i < 6; ++i) {
    cable_->set_delay(std::chrono::microseconds{random.below(4000)});
    wait_for(milliseconds{30});
    cable_->cut();
    wait_for(milliseconds{random.below(150)});
    cable_->mend();
  }
  cable_->set_delay({});
  for (const std::string& outcome : processes.outcomes())
    EXPECT_EQ(outcome, "ok");
}

INSTANTIATE_TEST_SUITE_P(PlainAndInCipher, CutLink, testing::Bool());

}  // namespace
}  // namespace wideep::ep
