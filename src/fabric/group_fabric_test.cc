#include "fabric/group_fabric.h"

#include "fabric/arena.h"
#include "fabric/frame.h"
#include "fabric/handover.h"
#include "fabric/local_socket.h"
#include "fabric/test_barrier.h"
#include "fabric/test_links.h"
#include "fabric/test_processes.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <vector>

namespace wideep::fabric {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr ChannelId kChannel{0};

Shape shape_of(int32_t num_ranks) {
  return {.node_of = std::vector<NodeId>(static_cast<size_t>(num_ranks)),
          .epoch = 7,
          .arena_bytes = 4096,
          .num_channels = 2};
}

GroupFabricOptions options_for(int32_t num_ranks) {
  return {.wait = WaitPolicy::for_node(num_ranks, 2)};
}

// Runs `body` on ranks that are threads of this process.
std::vector<Status> on_threads(const Shape& shape, const std::function<Status(Fabric&)>& body) {
  auto local = hand_over_in_process(shape);
  EXPECT_TRUE(local.has_value());
  std::vector<Status> status(static_cast<size_t>(shape.num_ranks()));
  std::vector<std::thread> threads;
  for (size_t r = 0; r < status.size(); ++r) {
    threads.emplace_back([&, r] {
      auto fabric = GroupFabric::create(shape, RankId{static_cast<int32_t>(r)},
                                        std::move((*local)[r]), {}, options_for(shape.num_ranks()));
      status[r] = fabric ? body(**fabric) : std::unexpected(fabric.error());
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  return status;
}

// All wait until all have signalled `seq` or later.
Status barrier(Fabric& fabric, uint64_t seq) {
  for (int32_t r = 0; r < fabric.shape().num_ranks(); ++r)
    WD_TRY(fabric.signal(RankId{r}, kChannel, {.seq = seq}));
  return await_all(fabric, kChannel, seq);
}

// Everyone writes into everyone's arena, in place and by put, and reads what the others wrote.
Status exchanges(Fabric& fabric, uint64_t rounds) {
  const auto me = subscript(fabric.rank());
  for (uint64_t round = 0; round < rounds; ++round) {
    for (int32_t r = 0; r < fabric.shape().num_ranks(); ++r) {
      const uint64_t number = round * 1000 + me;
      WD_TRY(fabric.put(RankId{r}, static_cast<int64_t>(me * 16),
                        std::as_bytes(std::span(&number, 1))));
      std::memcpy(fabric.mapped(RankId{r}).data() + me * 16 + 8, &number, sizeof number);
    }
    WD_TRY(barrier(fabric, 2 * round + 1));
    for (int32_t r = 0; r < fabric.shape().num_ranks(); ++r) {
      uint64_t read[2];
      std::memcpy(read, fabric.arena().data() + r * 16, sizeof read);
      const uint64_t expected = round * 1000 + static_cast<uint64_t>(r);
      if (read[0] != expected || read[1] != expected)
        return error(ErrorCode::kDataLoss, "round {}: {} and {} of rank {}", round, read[0],
                     read[1], r);
    }
    WD_TRY(barrier(fabric, 2 * round + 2));
  }
  return {};
}

TEST(GroupFabric, RanksOfOneNodeExchangeThroughTheirArenas) {
  for (const int32_t n : {1, 2, 3, 6}) {
    for (const Status& status :
         on_threads(shape_of(n), [](Fabric& fabric) { return exchanges(fabric, 200); }))
      EXPECT_TRUE(status.has_value()) << status.error().message;
  }
}

TEST(GroupFabric, NothingIsPolledBeforeTheFirstSignalOfTheEpoch) {
  on_threads(shape_of(1), [](Fabric& fabric) -> Status {
    EXPECT_FALSE(fabric.poll(RankId{0}, ChannelId{1}).has_value());
    WD_TRY(
        fabric.signal(RankId{0}, ChannelId{1}, {.seq = 0, .count = 3, .words = {1, 2, 3, 4, 5}}));
    const auto signal = fabric.poll(RankId{0}, ChannelId{1});
    EXPECT_EQ(signal->count, 3U);
    EXPECT_EQ(signal->words[4], 5U);
    return {};
  });
}

TEST(GroupFabric, AWaitEndsAtItsDeadlineAndNamesWhoIsMissing) {
  const auto status = on_threads(shape_of(2), [](Fabric& fabric) -> Status {
    if (fabric.rank() == RankId{1}) return barrier(fabric, 1);
    const auto never = [] { return false; };
    const auto what = [] { return std::string("a word"); };
    const auto missing = [] { return std::vector{RankId{1}}; };
    const Status timed_out = fabric.wait({.ready = never, .what = what, .missing = missing},
                                         fabric.clock().now() + milliseconds{20});
    WD_TRY(barrier(fabric, 1));
    return timed_out;
  });
  EXPECT_TRUE(status[1].has_value());
  ASSERT_FALSE(status[0].has_value());
  EXPECT_EQ(status[0].error().code, ErrorCode::kTimeout);
  EXPECT_THAT(status[0].error().message, testing::HasSubstr("missing: rank 1 (last sign of life"));
}

TEST(GroupFabric, WakeEndsAWaitFromAnotherThread) {
  on_threads(shape_of(1), [](Fabric& fabric) -> Status {
    std::atomic<bool> flag = false;
    std::thread other([&] {
      flag.store(true);
      fabric.wake();
    });
    const auto ready = [&] { return flag.load(); };
    const auto what = [] { return std::string("a flag"); };
    const auto missing = [] { return std::vector<RankId>{}; };
    const Status status = fabric.wait({.ready = ready, .what = what, .missing = missing},
                                      fabric.clock().now() + seconds{60});
    other.join();
    EXPECT_TRUE(status.has_value());
    return status;
  });
}

TEST(GroupFabric, AWaitForARankThatHasLeftFailsAndForOthersGoesOn) {
  const auto status = on_threads(shape_of(3), [](Fabric& fabric) -> Status {
    if (fabric.rank() == RankId{2}) return {};
    const auto never = [] { return false; };
    const auto what = [] { return std::string("a word"); };
    const auto missing = [] { return std::vector{RankId{2}}; };
    const Status left = fabric.wait({.ready = never, .what = what, .missing = missing},
                                    fabric.clock().now() + seconds{60});
    EXPECT_EQ(left.error().code, ErrorCode::kPeerLost);
    EXPECT_THAT(left.error().message, testing::HasSubstr("rank 2 lost (left"));
    // Ranks 0 and 1 are alive and can still talk.
    const RankId other{1 - index(fabric.rank())};
    WD_TRY(fabric.signal(other, kChannel, {.seq = 1}));
    const auto ready = [&] { return fabric.poll(other, kChannel).has_value(); };
    const auto from = [&] { return std::vector{other}; };
    return fabric.wait({.ready = ready, .what = what, .missing = from},
                       fabric.clock().now() + seconds{60});
  });
  EXPECT_TRUE(status[0].has_value());
  EXPECT_TRUE(status[1].has_value());
}

// A rank says its last word and leaves while another looks: what that one has seen is older than
// the goodbye.
TEST(GroupFabric, ARankThatHasLeftIsNotMissedOnceItsLastWordIsThere) {
  const auto status = on_threads(shape_of(3), [](Fabric& fabric) -> Status {
    if (fabric.rank() == RankId{2}) return {};
    const auto await_goodbye = [&](RankId peer) {
      while (fabric.peer_state(peer).life == PeerState::Life::kAlive)
        std::this_thread::yield();
    };
    if (fabric.rank() == RankId{1}) {
      const auto told = [&] { return fabric.poll(RankId{0}, kChannel).has_value(); };
      const auto what = [] { return std::string("leave to go"); };
      const auto nobody = [] { return std::vector<RankId>{}; };
      WD_TRY(fabric.wait({.ready = told, .what = what, .missing = nobody},
                         fabric.clock().now() + seconds{60}));
      return fabric.signal(RankId{0}, kChannel, {.seq = 1});
    }
    await_goodbye(RankId{2});  // the wait asks who is missing from its first look on
    bool has_looked = false;
    bool has_come = false;
    const auto ready = [&] {
      has_come = fabric.poll(RankId{1}, kChannel).has_value();
      if (std::exchange(has_looked, true)) return has_come;
      EXPECT_TRUE(fabric.signal(RankId{1}, kChannel, {.seq = 1}).has_value());
      await_goodbye(RankId{1});
      return has_come;
    };
    const auto what = [] { return std::string("a last word"); };
    const auto missing = [&] { return has_come ? std::vector<RankId>{} : std::vector{RankId{1}}; };
    return fabric.wait({.ready = ready, .what = what, .missing = missing},
                       fabric.clock().now() + seconds{60});
  });
  for (const Status& one : status)
    EXPECT_TRUE(one.has_value()) << one.error().message;
}

// While it lives, whoever logs blocks: stderr is a pipe that is full.
class BlockedLog {
 public:
  BlockedLog() : stderr_(dup(STDERR_FILENO)) {
    std::array<int, 2> ends;
    EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
    read_end_ = UniqueFd(ends[0]);
    const UniqueFd write_end(ends[1]);
    const std::array<char, 4096> bytes{};
    fcntl(write_end.get(), F_SETFL, O_NONBLOCK);
    while (write(write_end.get(), bytes.data(), bytes.size()) > 0) {
    }
    fcntl(write_end.get(), F_SETFL, 0);
    dup2(write_end.get(), STDERR_FILENO);
  }

  ~BlockedLog() {
    dup2(stderr_.get(), STDERR_FILENO);
    std::array<char, 4096> bytes;
    while (read(read_end_.get(), bytes.data(), bytes.size()) > 0) {
    }
  }

 private:
  const UniqueFd stderr_;
  UniqueFd read_end_;
};

// Rank 2 is only sockets here: it tells rank 0 that it is lost, and nobody else. What rank 0 then
// says of rank 2 and its own goodbye must not cross, however long its control thread takes.
TEST(GroupFabric, WhoLeavesBecauseOfALossIsNotNamedInItsPlace) {
  const Shape shape = shape_of(3);
  auto local = hand_over_in_process(shape);
  ASSERT_TRUE(local.has_value());
  std::array<std::promise<Status>, 2> outcomes;
  std::vector<std::jthread> ranks;
  for (const size_t r : {0, 1}) {
    ranks.emplace_back([&, r] {
      auto fabric = GroupFabric::create(shape, RankId{static_cast<int32_t>(r)},
                                        std::move((*local)[r]), {}, options_for(3));
      outcomes[r].set_value(await_all(**fabric, kChannel, 1));
    });
  }
  const BlockedLog blocked;
  const ControlMessage word{ControlMessage::Kind::kLost, 2, 2};
  ASSERT_GT(send((*local)[2].peers[0].socket.get(), &word, sizeof word, MSG_NOSIGNAL), 0);
  for (std::promise<Status>& outcome : outcomes)
    EXPECT_THAT(outcome.get_future().get().error().message,
                testing::HasSubstr("rank 2 lost (reported"));
}

// What one rank says over its link, to the link's end.
class Heard : public FrameSink {
 public:
  Heard(const Shape& shape, Stream& stream) : scratch_(static_cast<size_t>(shape.arena_bytes)) {
    FrameReader reader(shape, *this);
    for (;;) {
      const Result<size_t> count = stream.read(reader.room());
      if (!count || !reader.advance(*count)) return;
      if (*count == 0) WaitLimit(real_clock().now() + seconds{60}).await(stream.fd(), POLLIN);
    }
  }

  Result<std::span<std::byte>> place(RankId /*to*/, int64_t offset, int64_t bytes) override {
    return std::span(scratch_).subspan(static_cast<size_t>(offset), static_cast<size_t>(bytes));
  }

  Status on_signal(RankId /*to*/, ChannelId /*channel*/, const Signal& /*signal*/) override {
    return {};
  }

  void on_beat() override {}

  void on_control(ControlMessage::Kind kind, RankId about) override {
    words.emplace_back(kind, about);
  }

  std::vector<std::pair<ControlMessage::Kind, RankId>> words;

 private:
  std::vector<std::byte> scratch_;
};

// [rank]
std::vector<NodeLinks> link_all(const Shape& shape) {
  const TestListeners listeners(shape.num_ranks());
  std::vector<NodeLinks> links(static_cast<size_t>(shape.num_ranks()));
  std::vector<std::jthread> linking;
  for (size_t r = 0; r < links.size(); ++r) {
    linking.emplace_back([&, r] {
      auto linked = listeners.link(shape, RankId{static_cast<int32_t>(r)}, test_token());
      ASSERT_TRUE(linked.has_value()) << linked.error().message;
      links[r] = *std::move(linked);
    });
  }
  linking.clear();
  return links;
}

// Each rank is a node; ranks 1 and 2 are only sockets here. Rank 2 dies while much is on its way to
// rank 1, which takes it in slowly.
TEST(GroupFabric, WhoLeavesBecauseOfALossFirstSaysSoToThoseWhoLagBehind) {
  const Shape shape{.node_of = {NodeId{0}, NodeId{1}, NodeId{2}}, .arena_bytes = 1 << 20};
  std::vector<NodeLinks> links = link_all(shape);
  auto local = hand_over_in_process(shape);
  auto fabric = GroupFabric::create(shape, RankId{0}, std::move((*local)[0]), std::move(links[0]),
                                    {.liveness_deadline = seconds{30}});
  ASSERT_TRUE(fabric.has_value()) << fabric.error().message;
  const std::vector<std::byte> bytes(static_cast<size_t>(shape.arena_bytes));
  for (int i = 0; i < 64; ++i)
    ASSERT_TRUE((*fabric)->put(RankId{1}, 0, bytes).has_value());
  links[2] = NodeLinks{};
  EXPECT_THAT(await_all(**fabric, kChannel, 1).error().message, testing::HasSubstr("rank 2 lost"));
  const std::jthread leaving([&] { fabric->reset(); });
  const auto from_0 = std::ranges::find(links[1].incoming, RankId{0}, &SourceLink::source);
  EXPECT_THAT(Heard(shape, *from_0->stream).words,
              testing::ElementsAre(testing::Pair(ControlMessage::Kind::kLost, RankId{2}),
                                   testing::Pair(ControlMessage::Kind::kLeaving, RankId{0})));
}

// Rank 1 is the door through which rank 3 of another node is heard; the others are only sockets and
// memory here. A beat of rank 1 says that what rank 3 said before is known: else the silence of a
// door that was stopped would be taken for that of rank 3.
TEST(GroupFabric, ADoorThatIsHeardHasPassedOnWhatOthersSaid) {
  const Shape shape{.node_of = {NodeId{0}, NodeId{0}, NodeId{1}, NodeId{1}}};
  std::vector<NodeLinks> links = link_all(shape);
  auto local = hand_over_in_process(shape);
  const Arena heard = (*local)[0].peers[0].arena;
  const auto heard_at = [&](int32_t rank) {
    return TimePoint(Duration(heard.life(RankId{rank}).heard_ns.load()));
  };
  const auto door = GroupFabric::create(shape, RankId{1}, std::move((*local)[1]),
                                        std::move(links[1]), {.liveness_deadline = seconds{2}});
  ASSERT_TRUE(door.has_value()) << door.error().message;
  Stream& to_door = *links[3].outgoing[0].stream;
  ASSERT_EQ(links[3].outgoing[0].door, RankId{1});
  for (int time = 0; time < 4; ++time) {
    const TimePoint start = real_clock().now();
    ASSERT_TRUE(to_door.write(encode(FrameHeader{.kind = FrameKind::kBeat})).has_value());
    const TimePoint said = real_clock().now();
    while (heard_at(1) <= said && real_clock().now() < said + seconds{60}) {
    }
    EXPECT_GE(heard_at(3), start);
  }
}

// Rank 2 sends through rank 3, which leaves because rank 4 is lost; that news reaches rank 2 by way
// of rank 0, which is slow. All but rank 2 are only sockets here.
TEST(GroupFabric, ALinkThatClosesBeforeTheReasonIsKnownNamesNobodyYet) {
  constexpr milliseconds kSlow{100};
  const Shape shape{.node_of = {NodeId{0}, NodeId{0}, NodeId{0}, NodeId{1}, NodeId{1}}};
  std::vector<NodeLinks> links = link_all(shape);
  auto local = hand_over_in_process(shape);
  const auto fabric = GroupFabric::create(shape, RankId{2}, std::move((*local)[2]),
                                          std::move(links[2]), {.liveness_deadline = seconds{30}});
  ASSERT_TRUE(fabric.has_value()) << fabric.error().message;
  links[3] = NodeLinks{};
  poll(nullptr, 0, kSlow.count());
  const ControlMessage word{ControlMessage::Kind::kLost, 4, 0};
  ASSERT_GT(send((*local)[0].peers[2].socket.get(), &word, sizeof word, MSG_NOSIGNAL), 0);
  EXPECT_THAT(await_all(**fabric, kChannel, 1).error().message, testing::HasSubstr("rank 4 lost"));
}

// ---- Ranks that are processes.

// They go by the ends of connections alone: no heartbeat is ever late.
Status as_process(const Shape& shape, RankId rank, const std::function<Status(Fabric&)>& body) {
  WD_ASSIGN_OR_RETURN(LocalPeers local, hand_over(shape, rank, {.token = test_token()}));
  GroupFabricOptions options = options_for(shape.num_ranks());
  options.liveness_deadline = hours{1};
  WD_ASSIGN_OR_RETURN(auto fabric, GroupFabric::create(shape, rank, std::move(local), {}, options));
  return body(*fabric);
}

TEST(GroupFabricProcesses, ExchangeThroughMemoryThatWasHandedOver) {
  const Shape shape = shape_of(4);
  Processes processes(4, [&](int32_t r) {
    return as_process(shape, RankId{r}, [](Fabric& fabric) { return exchanges(fabric, 100); });
  });
  for (const std::string& outcome : processes.outcomes())
    EXPECT_EQ(outcome, "ok");
}

TEST(GroupFabricProcesses, EveryOtherNamesARankThatWasKilledWithoutWaitingForItsHeartbeat) {
  const Shape shape = shape_of(4);
  Processes processes(4, [&](int32_t r) {
    return as_process(shape, RankId{r}, [&](Fabric& fabric) {
      processes_ready(r);
      return exchanges(fabric, 1'000'000'000);
    });
  });
  processes.wait_until_ready();
  processes.kill(2, SIGKILL);
  const auto outcomes = processes.outcomes();
  for (const int32_t r : {0, 1, 3})
    EXPECT_THAT(outcomes[static_cast<size_t>(r)], testing::HasSubstr("rank 2 lost"));
}

TEST(GroupFabricProcesses, EveryOtherNamesARankThatWasStoppedAndItFindsOutItself) {
  const Shape shape = shape_of(3);
  Processes processes(3, [&](int32_t r) -> Status {
    WD_ASSIGN_OR_RETURN(LocalPeers local, hand_over(shape, RankId{r}, {.token = test_token()}));
    WD_ASSIGN_OR_RETURN(
        auto fabric, GroupFabric::create(shape, RankId{r}, std::move(local), {}, options_for(3)));
    processes_ready(r);
    return exchanges(*fabric, 1'000'000'000);
  });
  processes.wait_until_ready();
  processes.kill(1, SIGSTOP);
  EXPECT_THAT(processes.outcome(0), testing::HasSubstr("rank 1 lost"));
  EXPECT_THAT(processes.outcome(2), testing::HasSubstr("rank 1 lost"));
  processes.kill(1, SIGCONT);
  EXPECT_THAT(processes.outcome(1), testing::HasSubstr("lost"));
}

TEST(GroupFabricProcesses, AStopOfAllIsNobodysDelay) {
  constexpr milliseconds kDeadline{1000};
  constexpr milliseconds kStop{1500};
  const Shape shape = shape_of(2);
  Processes processes(2, [&](int32_t r) -> Status {
    WD_ASSIGN_OR_RETURN(LocalPeers local, hand_over(shape, RankId{r}, {.token = test_token()}));
    GroupFabricOptions options = options_for(2);
    options.wait.sleep_max = kDeadline / 10;
    WD_ASSIGN_OR_RETURN(auto fabric,
                        GroupFabric::create(shape, RankId{r}, std::move(local), {}, options));
    processes_ready(r);
    if (r == 1) {
      raise(SIGSTOP);
      return fabric->signal(RankId{0}, kChannel, {.seq = 1});
    }
    const auto ready = [&] { return fabric->poll(RankId{1}, kChannel).has_value(); };
    const auto what = [] { return std::string("a word"); };
    const auto missing = [] { return std::vector{RankId{1}}; };
    return fabric->wait({.ready = ready, .what = what, .missing = missing},
                        fabric->clock().now() + kDeadline);
  });
  processes.wait_until_ready();
  processes.kill(0, SIGSTOP);
  poll(nullptr, 0, kStop.count());  // this is the time that must not count
  processes.kill(0, SIGCONT);
  poll(nullptr, 0, kDeadline.count() / 10);  // the first looks around alone
  processes.kill(1, SIGCONT);
  EXPECT_EQ(processes.outcome(0), "ok");
  EXPECT_EQ(processes.outcome(1), "ok");
}

TEST(GroupFabricProcesses, RefuseEachOtherWhenTheirShapesDiffer) {
  Processes processes(2, [&](int32_t r) -> Status {
    Shape shape = shape_of(2);
    shape.arena_bytes += r * 4096;
    WD_TRY(hand_over(shape, RankId{r}, {.token = test_token(), .timeout = seconds{1}}));
    return {};
  });
  for (const std::string& outcome : processes.outcomes())
    EXPECT_NE(outcome, "ok");
}

TEST(Handover, EndsAtItsDeadlineAndSaysWhoDidNotCall) {
  const auto lonely =
      hand_over(shape_of(3), RankId{0}, {.token = test_token(), .timeout = milliseconds{30}});
  ASSERT_FALSE(lonely.has_value());
  EXPECT_EQ(lonely.error().code, ErrorCode::kTimeout);
  EXPECT_THAT(lonely.error().message, testing::HasSubstr("ranks 1 2 of this node did not call"));
  const auto higher =
      hand_over(shape_of(3), RankId{2}, {.token = test_token(), .timeout = milliseconds{30}});
  ASSERT_FALSE(higher.has_value());
  EXPECT_THAT(higher.error().message, testing::HasSubstr("rank 0"));
}

// Calls rank 0 of `shape` as soon as it listens.
UniqueFd call_rank_0(const Shape& shape) {
  const std::string name = fmt::format("wideep-{:016x}-{}-0", test_token(), shape.epoch);
  const TimePoint deadline = real_clock().now() + seconds{30};
  while (real_clock().now() < deadline) {
    if (Result<UniqueFd> socket = connect_local(name, local_packets())) return *std::move(socket);
    sched_yield();
  }
  return {};
}

// Knows everything that a greeting says, but runs as another user: what rank 0 gives it.
Status greet_as_another_user(const Shape& shape) {
  WD_ASSIGN_OR_RETURN(const SharedMemory memory,
                      SharedMemory::create("stranger", Arena::bytes_for(shape)));
  constexpr uid_t kNobody = 65534;
  if (setresuid(kNobody, kNobody, kNobody) != 0)
    return error(ErrorCode::kUnavailable, "cannot become another user");
  const UniqueFd socket = call_rank_0(shape);
  const Greeting greeting{kGreetingMagic, test_token(), hash(shape), 1};
  // Fails if rank 0 has hung up already.
  static_cast<void>(
      send_descriptor(socket.get(), std::as_bytes(std::span(&greeting, 1)), memory.fd()));
  std::array<std::byte, 64> bytes;
  const auto answer = receive_descriptor(socket.get(), bytes);
  if (answer && answer->num_bytes > 0) return error(ErrorCode::kDataLoss, "was given memory");
  return {};
}

TEST(Handover, GivesNothingToAnotherUserAndGoesOnWithoutHim) {
  if (geteuid() != 0) GTEST_SKIP() << "needs the right to become another user";
  const Shape shape = shape_of(2);
  Processes stranger(1, [&](int32_t) { return greet_as_another_user(shape); });
  Result<LocalPeers> first;
  std::thread rank_0([&] { first = hand_over(shape, RankId{0}, {.token = test_token()}); });
  EXPECT_EQ(stranger.outcome(0), "ok");
  const auto second = hand_over(shape, RankId{1}, {.token = test_token()});
  rank_0.join();
  EXPECT_TRUE(first.has_value()) << first.error().message;
  EXPECT_TRUE(second.has_value()) << second.error().message;
}

TEST(Handover, ACallerWhoSaysNothingDoesNotKeepTheOthersOut) {
  const Shape shape = shape_of(2);
  Result<LocalPeers> first;
  std::thread rank_0([&] {
    first = hand_over(shape, RankId{0}, {.token = test_token(), .greeting_timeout = hours{1}});
  });
  const UniqueFd silent = call_rank_0(shape);
  const auto second = hand_over(shape, RankId{1}, {.token = test_token()});
  rank_0.join();
  EXPECT_TRUE(first.has_value()) << first.error().message;
  EXPECT_TRUE(second.has_value()) << second.error().message;
}

TEST(Handover, ACallerWhoSaysNothingIsTurnedAwayInTheEnd) {
  const Shape shape = shape_of(2);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const UniqueFd interrupt(ends[0]);
  const UniqueFd seen_enough(ends[1]);
  Result<LocalPeers> first;
  std::thread rank_0([&] {
    first = hand_over(shape, RankId{0},
                      {.token = test_token(),
                       .timeout = hours{1},
                       .greeting_timeout = milliseconds{20},
                       .interrupt = interrupt.get()});
  });
  const UniqueFd silent = call_rank_0(shape);
  std::array<std::byte, 1> nothing;
  EXPECT_EQ(recv(silent.get(), nothing.data(), nothing.size(), 0), 0) << "it has been hung up on";
  EXPECT_EQ(write(seen_enough.get(), "x", 1), 1);
  rank_0.join();
  EXPECT_FALSE(first.has_value());
}

TEST(Handover, GreetingsOfOthersAreRefused) {
  const Greeting own{kGreetingMagic, 5, 6, 0};
  const auto parse = [&](Greeting greeting) {
    return parse_greeting(std::as_bytes(std::span(&greeting, 1)), own, 4);
  };
  EXPECT_EQ(*parse({kGreetingMagic, 5, 6, 3}), RankId{3});
  EXPECT_FALSE(parse({kGreetingMagic + 1, 5, 6, 3}).has_value());
  EXPECT_FALSE(parse({kGreetingMagic, 4, 6, 3}).has_value());
  EXPECT_FALSE(parse({kGreetingMagic, 5, 7, 3}).has_value());
  EXPECT_FALSE(parse({kGreetingMagic, 5, 6, 4}).has_value());
  EXPECT_FALSE(parse({kGreetingMagic, 5, 6, -1}).has_value());
  EXPECT_FALSE(parse_greeting({}, own, 4).has_value());
}

}  // namespace
}  // namespace wideep::fabric
