#include "fabric/join.h"

#include "fabric/meeting.h"
#include "fabric/membership.h"
#include "fabric/stream.h"
#include "fabric/test_processes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace wideep::fabric {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

JoinOptions options_for(int32_t rank, int32_t num_ranks, const net::Address& leader) {
  JoinOptions options{.rank = RankId{rank}, .num_ranks = num_ranks, .leader = leader};
  options.timeout = seconds{20};
  options.fabric.wait = WaitPolicy::for_node(num_ranks, 2);
  return options;
}

const auto small_arena = [](const std::vector<NodeId>&) -> int64_t { return 4096; };

// Only the meeting: who is who.
Result<std::unique_ptr<Meeting>> begin(const JoinOptions& options) {
  return Meeting::begin({.leader = options.leader,
                         .self = {.rank = options.rank,
                                  .num_ranks = options.num_ranks,
                                  .host = "host",
                                  .address = {.host = "127.0.0.1", .port = 1},
                                  .rules = options.rules},
                         .key = options.key,
                         .timeout = options.timeout});
}

Status meet(const JoinOptions& options) {
  WD_ASSIGN_OR_RETURN(const auto meeting, begin(options));
  WD_TRY(meeting->members());
  return meeting->all_linked();
}

Status all_signal(Fabric& fabric) {
  for (int32_t r = 0; r < fabric.shape().num_ranks(); ++r)
    WD_TRY(fabric.signal(RankId{r}, ChannelId{0}, {.seq = 1}));
  const auto missing = [&] {
    std::vector<RankId> ranks;
    for (int32_t r = 0; r < fabric.shape().num_ranks(); ++r)
      if (!fabric.poll(RankId{r}, ChannelId{0})) ranks.push_back(RankId{r});
    return ranks;
  };
  const auto ready = [&] { return missing().empty(); };
  const auto what = [] { return std::string("all"); };
  return fabric.wait({.ready = ready, .what = what, .missing = missing},
                     fabric.clock().now() + seconds{20});
}

TEST(Join, RanksMeetAtTheLeaderAndShareMemory) {
  const LeaderAddress leader;
  Processes processes(3, [&](int32_t rank) -> Status {
    WD_ASSIGN_OR_RETURN(auto fabric, join(options_for(rank, 3, leader), small_arena));
    for (int32_t r = 0; r < 3; ++r)
      if (fabric->peer_state(RankId{r}).transport != (r == rank ? "self" : "shm"))
        return error(ErrorCode::kDataLoss, "rank {} is not reached over memory", r);
    return all_signal(*fabric);
  });
  for (const std::string& outcome : processes.outcomes())
    EXPECT_EQ(outcome, "ok");
}

TEST(Join, ANodeIdSplitsOneHostIntoSeveral) {
  const LeaderAddress leader;
  Processes processes(5, [&](int32_t rank) -> Status {
    JoinOptions options = options_for(rank, 5, leader);
    options.node_id = rank < 3 ? 7 : 9;
    WD_ASSIGN_OR_RETURN(auto fabric, join(options, small_arena));
    if (fabric->peer_state(RankId{rank < 3 ? 4 : 0}).transport != "tcp")
      return error(ErrorCode::kDataLoss, "not over tcp");
    return all_signal(*fabric);
  });
  for (const std::string& outcome : processes.outcomes())
    EXPECT_EQ(outcome, "ok");
}

// Ranks 0 and 1 on one node, 2 and 3 on another. Each fills a place in the arena of one rank over
// there and tells the other rank over there, which looks, and answers.
constexpr int64_t kPlaceBytes = 48 << 10;

Status await_seq(Fabric& fabric, RankId from, uint64_t seq) {
  const auto ready = [&] { return fabric.poll(from, ChannelId{0}).value_or(Signal{}).seq == seq; };
  const auto what = [&] { return fmt::format("signal {}", seq); };
  const auto missing = [&] { return std::vector{from}; };
  return fabric.wait({.ready = ready, .what = what, .missing = missing},
                     fabric.clock().now() + seconds{20});
}

Status fill_and_tell(Fabric& fabric, uint64_t rounds) {
  const int32_t me = index(fabric.rank());
  const RankId partner{(me + 2) % 4};
  const RankId neighbour_of_partner{index(partner) ^ 1};
  const RankId own_neighbour{me ^ 1};
  std::vector<uint64_t> numbers(kPlaceBytes / sizeof(uint64_t));
  for (uint64_t round = 1; round <= rounds; ++round) {
    std::ranges::fill(numbers, round * 10 + static_cast<uint64_t>(me));
    WD_TRY(fabric.put(neighbour_of_partner, me * kPlaceBytes, std::as_bytes(std::span(numbers))));
    WD_TRY(fabric.signal(partner, ChannelId{0}, {.seq = round, .count = round + 1, .words = {7}}));
    WD_TRY(await_seq(fabric, partner, round));
    const std::optional<Signal> signal = fabric.poll(partner, ChannelId{0});
    if (signal->count != round + 1 || signal->words[0] != 7)
      return error(ErrorCode::kDataLoss, "round {}: count {}", round, signal->count);
    const auto place = fabric.mapped(own_neighbour)
                           .subspan(static_cast<size_t>(index(partner) * kPlaceBytes), kPlaceBytes);
    std::memcpy(numbers.data(), place.data(), place.size());
    for (const uint64_t number : numbers)
      if (number != round * 10 + static_cast<uint64_t>(index(partner)))
        return error(ErrorCode::kDataLoss, "round {}: {} is there", round, number);
    // Before the next round overwrites it: everybody has looked.
    WD_TRY(fabric.signal(partner, ChannelId{1}, {.seq = round}));
    const auto looked = [&] {
      return fabric.poll(partner, ChannelId{1}).value_or(Signal{}).seq >= round;
    };
    const auto what = [] { return std::string("a look"); };
    const auto missing = [&] { return std::vector{partner}; };
    WD_TRY(fabric.wait({.ready = looked, .what = what, .missing = missing},
                       fabric.clock().now() + seconds{20}));
  }
  return {};
}

// In a folder that only they may enter they need no key, whichever hosts they play.
TEST(Join, RanksOfOneHostMeetAtAUnixSocket) {
  const std::string path = fmt::format("{}/meeting-{}", testing::TempDir(), getpid());
  for (int time = 0; time < 2; ++time) {  // what the first meeting leaves there is in no way
    Processes processes(4, [&](int32_t rank) -> Status {
      JoinOptions options = options_for(rank, 4, net::Address::unix_socket(path));
      options.host.clear();
      options.node_id = rank / 2;
      WD_ASSIGN_OR_RETURN(auto fabric, join(options, small_arena));
      return all_signal(*fabric);
    });
    for (const std::string& outcome : processes.outcomes())
      EXPECT_EQ(outcome, "ok");
  }
  unlink(path.c_str());
}

TEST(Join, FindsOutHowOthersReachThisHost) {
  const TimePoint deadline = real_clock().now() + seconds{1};
  EXPECT_EQ(*host_towards(net::Address::unix_socket("/x"), deadline), "127.0.0.1");
  EXPECT_EQ(*host_towards({.host = "127.0.0.1", .port = 1}, deadline), "127.0.0.1");
}

// In a process of its own: the thread that asks the name service may outlive the deadline, and
// tests after this one fork.
TEST(Join, AHostThatNobodyKnowsIsReachedFromNowhere) {
  Processes processes(1, [](int32_t) -> Status {
    const TimePoint deadline = real_clock().now() + milliseconds{200};
    const auto host = host_towards({.host = "no-such-host.invalid", .port = 1}, deadline);
    return host ? Status{} : std::unexpected(host.error());
  });
  EXPECT_THAT(processes.outcome(0), testing::HasSubstr("no-such-host.invalid"));
}

TEST(Join, WhoSeesASignalSeesThePutsBeforeItOverEveryTransport) {
  struct Kind {
    NodeTransport transport;
    std::string ucx;
  };

  for (const Kind& kind :
       {Kind{NodeTransport::kTcp, ""}, Kind{NodeTransport::kUcx, "tcp"},
        Kind{NodeTransport::kUcx, "posix,self"}, Kind{NodeTransport::kUcx, "sysv,self"}}) {
    SCOPED_TRACE(fmt::format("{} {}", name(kind.transport), kind.ucx));
    const LeaderAddress leader;
    Processes processes(4, [&](int32_t rank) -> Status {
      JoinOptions options = options_for(rank, 4, leader);
      options.node_id = rank / 2;
      options.transport = kind.transport;
      options.ucx.transports = kind.ucx;
      const auto arena = [](const std::vector<NodeId>&) { return 4 * kPlaceBytes; };
      WD_ASSIGN_OR_RETURN(auto fabric, join(options, arena));
      if (fabric->peer_state(RankId{3 - rank}).transport != name(kind.transport))
        return error(ErrorCode::kDataLoss, "over another transport");
      return fill_and_tell(*fabric, 200);
    });
    for (const std::string& outcome : processes.outcomes())
      EXPECT_EQ(outcome, "ok");
  }
}

TEST(Join, UcxIsRefusedWhereItWouldBeOpenOrSlowInSilence) {
  JoinOptions options = options_for(0, 2, {.host = "10.0.0.1", .port = 1});
  options.host = "10.0.0.2";
  options.key = *PresharedKey::from_secret("a secret for this test");
  options.transport = NodeTransport::kUcx;
  const auto open = join(options, small_arena);
  ASSERT_FALSE(open.has_value());
  EXPECT_THAT(open.error().message, testing::HasSubstr("ucx does not encrypt"));
}

TEST(Join, ALostRankOfAnotherNodeIsNamedEverywhereWithoutWaitingForItsHeartbeat) {
  const LeaderAddress leader;
  Processes processes(4, [&](int32_t rank) -> Status {
    JoinOptions options = options_for(rank, 4, leader);
    options.node_id = rank / 2;
    options.fabric.liveness_deadline = hours{1};
    WD_ASSIGN_OR_RETURN(auto fabric, join(options, small_arena));
    processes_ready(rank);
    const auto never = [] { return false; };
    const auto what = [] { return std::string("nothing"); };
    const auto missing = [] { return std::vector<RankId>{}; };
    return fabric->wait({.ready = never, .what = what, .missing = missing},
                        fabric->clock().now() + seconds{60});
  });
  processes.wait_until_ready();
  processes.kill(3, SIGKILL);
  for (const int32_t rank : {0, 1, 2})
    EXPECT_THAT(processes.outcome(rank), testing::HasSubstr("rank 3 lost"));
}

TEST(Join, AKeyProtectsTheMeetingAndTheLinks) {
  const LeaderAddress leader;
  const auto key = *PresharedKey::from_secret("the secret of this group");
  Processes processes(5, [&](int32_t rank) -> Status {
    JoinOptions options = options_for(rank % 4, 4, leader);
    options.node_id = rank % 2;
    options.key = key;
    if (rank == 4) {  // a stranger who plays rank 0's follower
      options.rank = RankId{1};
      options.key = *PresharedKey::from_secret("some other secret entirely");
      return meet(options) ? error(ErrorCode::kDataLoss, "let in") : Status{};
    }
    WD_ASSIGN_OR_RETURN(auto fabric, join(options, small_arena));
    return all_signal(*fabric);
  });
  for (const std::string& outcome : processes.outcomes())
    EXPECT_EQ(outcome, "ok");
}

TEST(Join, RanksWithOtherRulesAreRefusedWithBothNamed) {
  const LeaderAddress leader;
  Processes processes(2, [&](int32_t rank) -> Status {
    JoinOptions options = options_for(rank, 2, leader);
    options.rules = rank == 0 ? "bf16 dispatch" : "int8 dispatch";
    options.timeout = seconds{1};
    return join(options, small_arena) ? Status{} : error(ErrorCode::kUnavailable, "unreachable");
  });
  // Each process reports; the refused one has the reason of the leader.
  for (const std::string& outcome : processes.outcomes())
    EXPECT_NE(outcome, "ok");
}

// They have not come for that: the right one may come after them.
TEST(Meet, TellsTheRefusedWhy) {
  const LeaderAddress leader;
  const auto met = [&](int32_t rank, int32_t num_ranks, std::string rules) -> Status {
    JoinOptions options = options_for(rank, num_ranks, leader);
    options.rules = std::move(rules);
    return meet(options);
  };
  Processes processes(3, [&](int32_t rank) -> Status {
    if (rank == 0) return met(0, 2, "bf16");
    return rank == 1 ? met(1, 2, "int8") : met(1, 3, "bf16");
  });
  EXPECT_THAT(processes.outcome(1),
              testing::AllOf(testing::HasSubstr("'int8'"), testing::HasSubstr("'bf16'")));
  EXPECT_THAT(processes.outcome(2), testing::HasSubstr("expects 3 ranks, the leader 2"));
  Processes right(1, [&](int32_t) { return met(1, 2, "bf16"); });
  EXPECT_EQ(right.outcome(0), "ok");
  EXPECT_EQ(processes.outcome(0), "ok");
}

TEST(Join, AGroupOfOneNeedsNoLeader) {
  auto fabric = join({.num_ranks = 1}, small_arena);
  ASSERT_TRUE(fabric.has_value()) << fabric.error().message;
  EXPECT_TRUE(all_signal(**fabric).has_value());
}

TEST(Join, NothingLeavesTheHostUnasked) {
  JoinOptions options = options_for(1, 2, {.host = "10.1.2.3", .port = 9});
  options.timeout = milliseconds{50};
  const auto fabric = join(options, small_arena);
  ASSERT_FALSE(fabric.has_value());
  EXPECT_THAT(fabric.error().message, testing::HasSubstr("needs a key"));
}

TEST(Membership, ReadsBackWhatWasWritten) {
  const Introduction introduction{.rank = RankId{2},
                                  .num_ranks = 4,
                                  .host = "h",
                                  .address = {.host = "127.0.0.1", .port = 7},
                                  .rules = "r"};
  const auto parsed = parse_introduction(encode(introduction));
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  EXPECT_EQ(parsed->rank, RankId{2});
  EXPECT_EQ(parsed->address, introduction.address);
  const Membership membership{.epoch = 3,
                              .token = UINT64_MAX,
                              .node_of = {NodeId{0}, NodeId{1}},
                              .addresses = {introduction.address, introduction.address}};
  const auto read = parse_membership(encode(membership), 2);
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(read->token, UINT64_MAX);
  EXPECT_EQ(read->node_of, membership.node_of);
}

TEST(Membership, RefusesWhatCannotBe) {
  for (const std::string_view text :
       {"", "[]", "{}", R"({"protocol":1})", R"({"protocol":2,"rank":4,"num_ranks":4})",
        R"({"protocol":2,"rank":0,"num_ranks":1,"host":"h","rules":"","address":"nowhere"})"})
    EXPECT_FALSE(parse_introduction(text).has_value()) << text;
  for (const std::string_view text :
       {R"({"protocol":2,"epoch":"0","token":"1","nodes":[0],"addresses":["a:1"]})",
        R"({"protocol":2,"epoch":"1","token":"x","nodes":[0],"addresses":["a:1"]})",
        R"({"protocol":2,"epoch":"1","token":"1","nodes":[1],"addresses":["a:1"]})",
        R"({"protocol":2,"epoch":"1","token":"1","nodes":[0,0],"addresses":["a:1"]})",
        R"({"protocol":2,"epoch":"1","token":"1","nodes":[0],"addresses":[7]})"})
    EXPECT_FALSE(parse_membership(text, 1).has_value()) << text;
  EXPECT_THAT(
      parse_membership(encode_refusal({ErrorCode::kInvalidArgument, "no"}), 1).error().message,
      testing::HasSubstr("no"));
}

TEST(Membership, NumbersHostsByTheirLowestRank) {
  EXPECT_THAT(number_nodes({"b", "a", "b", "c"}),
              testing::ElementsAre(NodeId{0}, NodeId{1}, NodeId{0}, NodeId{2}));
}

}  // namespace
}  // namespace wideep::fabric
