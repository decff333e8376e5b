// The exchange between real processes on this host: the judge's bits, and kill -9 and SIGSTOP in
// the middle of it.
#include "exchange_rank.h"
#include "fabric/handover.h"
#include "fabric/test_processes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <string>
#include <vector>

namespace wideep::ep {
namespace {

using fabric::Processes;
using math::RowFormat;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

Result<std::unique_ptr<fabric::GroupFabric>> join(const SimGroup& group,
                                                  int32_t rank,
                                                  uint64_t epoch,
                                                  Duration liveness) {
  fabric::Shape shape = group.shape();
  shape.epoch = epoch;
  WD_ASSIGN_OR_RETURN(fabric::LocalPeers local,
                      fabric::hand_over(shape, RankId{rank}, {.token = fabric::test_token()}));
  return fabric::GroupFabric::create(
      shape, RankId{rank}, std::move(local), {},
      {.wait = fabric::WaitPolicy::for_node(shape.num_ranks(), 2), .liveness_deadline = liveness});
}

TEST(ExchangeProcesses, GiveTheBitsOfTheJudge) {
  for (const int32_t n : {2, 3, 5}) {
    const SimGroup group = group_of(n);
    const Rows expected = reference_rows(group.scenario);
    Processes processes(n, [&](int32_t rank) -> Status {
      WD_ASSIGN_OR_RETURN(auto fabric, join(group, rank, 1, seconds{3}));
      WD_ASSIGN_OR_RETURN(const std::vector<float> rows, run_on(*fabric, group));
      return compare(rows, expected[static_cast<size_t>(rank)]);
    });
    for (const std::string& outcome : processes.outcomes())
      EXPECT_EQ(outcome, "ok");
  }
}

TEST(ExchangeProcesses, AKillIsNamedByAllOthersWithoutWaitingForAHeartbeat) {
  SimGroup group = group_of(4);
  group.scenario.num_steps = 1'000'000;
  Processes processes(4, [&](int32_t rank) -> Status {
    WD_ASSIGN_OR_RETURN(auto fabric, join(group, rank, 1, hours{1}));
    fabric::processes_ready(rank);
    const auto rows = run_on(*fabric, group);
    return rows ? Status{} : std::unexpected(rows.error());
  });
  processes.wait_until_ready();
  processes.kill(1, SIGKILL);
  for (const int32_t rank : {0, 2, 3})
    EXPECT_THAT(processes.outcome(rank), testing::HasSubstr("rank 1 lost"));
}

// A rank stops itself in the middle of an exchange; the others name it, form the next epoch with
// new arenas, and compute. Then the stopped one wakes up and goes on in the old epoch: it must find
// out, and no bit of the new epoch may change.
void expect_no_bit_changed(
    const std::function<Result<std::vector<float>>(fabric::Fabric&, const SimGroup&)>&
        stop_within) {
  SimGroup old_group = group_of(3);
  old_group.scenario.num_steps = 1'000'000;
  SimGroup new_group = group_of(2);
  new_group.scenario.num_steps = 400;
  const Rows expected = reference_rows(new_group.scenario);
  constexpr int32_t kStopped = 2;
  Processes processes(3, [&](int32_t rank) -> Status {
    WD_ASSIGN_OR_RETURN(auto old_fabric, join(old_group, rank, 1, seconds{3}));
    const auto ended =
        rank == kStopped ? stop_within(*old_fabric, old_group) : run_on(*old_fabric, old_group);
    if (rank == kStopped) return std::unexpected(ended.error());
    if (ended.error().message.find("rank 2 lost") == std::string::npos)
      return error(ErrorCode::kDataLoss, "named another: {}", ended.error().message);
    old_fabric.reset();
    WD_ASSIGN_OR_RETURN(auto fabric, join(new_group, rank, 2, seconds{3}));
    fabric::processes_ready(rank);
    WD_ASSIGN_OR_RETURN(const std::vector<float> rows, run_on(*fabric, new_group));
    return compare(rows, expected[static_cast<size_t>(rank)]);
  });
  processes.wait_until_ready(2);
  processes.kill(kStopped, SIGCONT);
  EXPECT_THAT(processes.outcome(kStopped), testing::HasSubstr("lost"));
  EXPECT_EQ(processes.outcome(0), "ok");
  EXPECT_EQ(processes.outcome(1), "ok");
}

// The exchange of a rank that stops once, where `stop` says so.
class StoppingAllToAll final : public AllToAll {
 public:
  enum class Where { kHalfOfTheResultsWritten, kBeforeTheSum };

  StoppingAllToAll(FabricAllToAll& inner, Where where) : inner_(inner), where_(where) {}

  Result<StepProgram> begin_step(const StepWish& wish) override { return inner_.begin_step(wish); }

  Status start_dispatch(LayerId layer, MatrixView<const float> h, const Routing& routing) override {
    return inner_.start_dispatch(layer, h, routing);
  }

  Result<ExpertBatch> next_experts() override { return inner_.next_experts(); }

  Status finish(const ExpertBatch& batch) override { return inner_.finish(batch); }

  Status combine(MatrixView<const float> shared, MatrixView<float> x) override {
    if (where_ == Where::kBeforeTheSum) stop();
    return inner_.combine(shared, x);
  }

  int64_t tokens_max() const override { return inner_.tokens_max(); }

  // After the results of one expert.
  void on_results() {
    if (where_ == Where::kHalfOfTheResultsWritten) stop();
  }

 private:
  void stop() {
    if (++num_calls_ == 40) raise(SIGSTOP);
  }

  FabricAllToAll& inner_;
  const Where where_;
  int num_calls_ = 0;
};

Result<std::vector<float>> run_and_stop(fabric::Fabric& fabric,
                                        const SimGroup& group,
                                        StoppingAllToAll::Where where) {
  ThreadPool pool({.num_threads = 1});
  WD_ASSIGN_OR_RETURN(
      auto inner, FabricAllToAll::create(fabric, group.placement, math::reference_kernels(), pool,
                                         group.options));
  StoppingAllToAll exchange(*inner, where);
  return run_scenario(group.scenario, exchange, group.placement, fabric.rank(),
                      [&](LayerId, const ExpertRows&) { exchange.on_results(); });
}

TEST(ExchangeProcesses, ARankThatStoppedWhileItWroteResultsChangesNoBitOfTheNextEpoch) {
  expect_no_bit_changed([](fabric::Fabric& fabric, const SimGroup& group) {
    return run_and_stop(fabric, group, StoppingAllToAll::Where::kHalfOfTheResultsWritten);
  });
}

TEST(ExchangeProcesses, ARankThatStoppedInItsCombineChangesNoBitOfTheNextEpoch) {
  expect_no_bit_changed([](fabric::Fabric& fabric, const SimGroup& group) {
    return run_and_stop(fabric, group, StoppingAllToAll::Where::kBeforeTheSum);
  });
}

// ---- As a deployment does it: ranks meet at the leader, some of them on other "hosts".

TEST(ExchangeGroups, OfEveryNodeSplitGiveTheBitsOfTheJudge) {
  for (const std::vector<int>& nodes :
       std::vector<std::vector<int>>{{0, 0, 1, 1}, {0, 0, 0, 1, 1}, {0, 0, 1, 1, 2, 2, 3, 3}}) {
    SimGroup group = group_of(static_cast<int32_t>(nodes.size()));
    group.nodes = nodes;
    const Rows expected = reference_rows(group.scenario);
    const fabric::LeaderAddress leader;
    Processes processes(group.scenario.num_ranks, [&](int32_t rank) {
      // Every other group talks in cipher.
      const Part part{.leader = leader, .in_cipher = group.scenario.num_ranks % 2 == 0};
      return take_part(group, rank, part, [&](Group& joined) -> Status {
        return play_and_compare(group, joined, expected);
      });
    });
    for (const std::string& outcome : processes.outcomes())
      EXPECT_EQ(outcome, "ok");
  }
}

// Ranks load at their own pace: whoever is ready waits, until the last is, or until one is gone.
TEST(ExchangeGroups, WaitForTheRankThatLoadsLongestAndNameOneThatDiesWhileLoading) {
  SimGroup group = group_of(3);
  const fabric::LeaderAddress leader;
  Processes processes(3, [&](int32_t rank) {
    return take_part(group, rank, {.leader = leader}, [&](Group& joined) -> Status {
      WD_TRY(joined.await_ready(seconds{30}));
      WD_TRY(joined.check_peers());
      fabric::processes_ready(rank);
      if (rank == 1) {  // loads until it is killed
        pollfd nothing{.fd = -1, .events = 0, .revents = 0};
        poll(&nothing, 1, 60'000);
      }
      // The others look between two tensors.
      while (const Status all_there = joined.check_peers()) {
        pollfd nothing{.fd = -1, .events = 0, .revents = 0};
        poll(&nothing, 1, 1);
      }
      return joined.check_peers();
    });
  });
  processes.wait_until_ready();
  processes.kill(1, SIGKILL);
  for (const int32_t rank : {0, 2})
    EXPECT_THAT(processes.outcome(rank), testing::HasSubstr("rank 1 lost ("));
}

// UCX over transports that any machine has: its calls, its order and its wake-ups, not its speed.
TEST(ExchangeGroups, OverUcxGiveTheBitsOfTheJudge) {
  for (const std::string transports : {"tcp", "posix,self", "sysv,self"}) {
    for (const std::vector<int>& nodes : std::vector<std::vector<int>>{{0, 1}, {0, 0, 1, 1}}) {
      SCOPED_TRACE(fmt::format("{} ranks over {}", nodes.size(), transports));
      SimGroup group = group_of(static_cast<int32_t>(nodes.size()));
      group.nodes = nodes;
      const Rows expected = reference_rows(group.scenario);
      const fabric::LeaderAddress leader;
      Processes processes(group.scenario.num_ranks, [&](int32_t rank) {
        const Part part{.leader = leader,
                        .transport = fabric::NodeTransport::kUcx,
                        .ucx = {.transports = transports}};
        return take_part(group, rank, part, [&](Group& joined) -> Status {
          // The last half is on the other node.
          const RankId other{group.scenario.num_ranks - 1 - rank};
          if (joined.fabric().peer_state(other).transport != "ucx")
            return error(ErrorCode::kDataLoss, "not over ucx");
          return play_and_compare(group, joined, expected);
        });
      });
      for (const std::string& outcome : processes.outcomes())
        EXPECT_EQ(outcome, "ok");
    }
  }
}

TEST(ExchangeGroups, AKillIsNamedOverUcxToo) {
  SimGroup group = group_of(4);
  group.nodes = {0, 0, 1, 1};
  group.scenario.num_steps = 1'000'000;
  const fabric::LeaderAddress leader;
  Processes processes(4, [&](int32_t rank) {
    const Part part{.leader = leader,
                    .transport = fabric::NodeTransport::kUcx,
                    .ucx = {.transports = "posix,self"}};
    return take_part(group, rank, part, [&](Group& joined) -> Status {
      fabric::processes_ready(rank);
      WD_TRY(run_scenario(group.scenario, joined.exchange(), joined.placement(), RankId{rank}));
      return {};
    });
  });
  processes.wait_until_ready();
  processes.kill(3, SIGKILL);
  for (const int32_t rank : {0, 1, 2})
    EXPECT_THAT(processes.outcome(rank), testing::HasSubstr("rank 3 lost"));
}

Result<std::unique_ptr<fabric::GroupFabric>> join_over_ucx(const net::Address& leader,
                                                           int32_t rank,
                                                           int64_t arena_bytes) {
  fabric::JoinOptions options{.rank = RankId{rank}, .num_ranks = 2, .leader = leader};
  options.node_id = rank;
  options.transport = fabric::NodeTransport::kUcx;
  options.ucx.transports = "tcp";
  options.fabric.liveness_deadline = seconds{60};
  options.fabric.send_deadline = milliseconds{200};
  return fabric::join(options, [&](const std::vector<NodeId>&) { return arena_bytes; });
}

// Rank 1 is stopped, so that a put of rank 0 gives up. From then on the memory of that put is
// somebody else's again: what is written there must not arrive when rank 1 goes on.
TEST(ExchangeGroups, APutThatGaveUpSendsNothingMoreOverUcx) {
  constexpr int64_t kBytes = 8 << 20;
  constexpr std::byte kLater{0xEE};
  const fabric::LeaderAddress leader;
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const fabric::UniqueFd told(ends[0]);
  const fabric::UniqueFd tell(ends[1]);
  Processes processes(2, [&](int32_t rank) -> Status {
    WD_ASSIGN_OR_RETURN(const auto fabric, join_over_ucx(leader, rank, kBytes));
    if (rank == 1) {
      fabric::processes_ready(rank);
      while (fabric->peer_state(RankId{0}).life == fabric::PeerState::Life::kAlive)
        ::poll(nullptr, 0, 1);
      if (std::ranges::find(fabric->arena(), kLater) == fabric->arena().end()) return {};
      return error(ErrorCode::kDataLoss, "bytes came that were written after the put");
    }
    char byte = 0;
    if (read(told.get(), &byte, 1) != 1) return error(ErrorCode::kUnavailable, "nobody said go on");
    std::vector<std::byte> rows(kBytes, std::byte{1});
    Status put;
    while (put)
      put = fabric->put(RankId{1}, 0, rows);
    if (put.error().code != ErrorCode::kTimeout) return put;
    std::ranges::fill(rows, kLater);
    fabric::processes_ready(rank);
    ::poll(nullptr, 0, 500);  // the control thread makes what is left of UCX's work progress
    return {};
  });
  processes.wait_until_ready(1);
  processes.kill(1, SIGSTOP);
  EXPECT_EQ(write(tell.get(), "x", 1), 1);
  processes.wait_until_ready(1);
  processes.kill(1, SIGCONT);
  EXPECT_EQ(processes.outcome(0), "ok");
  // UCX's own tcp may end a process whose peer closes while it receives (fabric/ucx.h).
  EXPECT_THAT(processes.outcome(1), testing::AnyOf("ok", "killed"));
}

TEST(ExchangeGroups, AKillOnAnotherNodeIsNamedByAllOthers) {
  for (const int32_t dead : {0, 1, 4}) {
    SimGroup group = group_of(5);
    group.nodes = {0, 0, 0, 1, 1};
    group.scenario.num_steps = 1'000'000;
    const fabric::LeaderAddress leader;
    Processes processes(5, [&](int32_t rank) {
      return take_part(group, rank, {.leader = leader}, [&](Group& joined) -> Status {
        fabric::processes_ready(rank);
        WD_TRY(run_scenario(group.scenario, joined.exchange(), joined.placement(), RankId{rank}));
        return {};
      });
    });
    processes.wait_until_ready();
    processes.kill(dead, SIGKILL);
    for (int32_t rank = 0; rank < 5; ++rank) {
      if (rank == dead) continue;
      EXPECT_THAT(processes.outcome(rank), testing::HasSubstr(fmt::format("rank {} lost", dead)));
    }
  }
}

// A stopped rank also holds up what others send to its node through it; it is named, not they.
TEST(ExchangeGroups, AStopOnAnotherNodeIsNamedByAllOthers) {
  for (const int32_t stopped : {1, 3}) {
    SimGroup group = group_of(5);
    group.nodes = {0, 0, 0, 1, 1};
    group.scenario.num_steps = 1'000'000;
    const fabric::LeaderAddress leader;
    Processes processes(5, [&](int32_t rank) {
      const auto body = [&](Group& joined) -> Status {
        fabric::processes_ready(rank);
        WD_TRY(run_scenario(group.scenario, joined.exchange(), joined.placement(), RankId{rank}));
        return {};
      };
      return take_part(group, rank, {.leader = leader}, body);
    });
    processes.wait_until_ready();
    processes.kill(stopped, SIGSTOP);
    for (int32_t rank = 0; rank < 5; ++rank) {
      if (rank == stopped) continue;
      EXPECT_THAT(processes.outcome(rank),
                  testing::HasSubstr(fmt::format("rank {} lost", stopped)));
    }
  }
}

TEST(ExchangeGroups, ThatDisagreeAreToldAboutWhat) {
  const fabric::LeaderAddress leader;
  Processes processes(2, [&](int32_t rank) {
    SimGroup group = group_of(2);
    if (rank == 1) group.options.shape.formats.combine = RowFormat::kF32;
    return take_part(group, rank, {.leader = leader}, [](Group&) { return Status{}; });
  });
  EXPECT_THAT(processes.outcome(1), testing::AllOf(testing::HasSubstr("combine f32"),
                                                   testing::HasSubstr("combine bf16")));
  processes.kill(0, SIGKILL);
}

}  // namespace
}  // namespace wideep::ep
