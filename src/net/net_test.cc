#include "net/address.h"
#include "net/asio.h"
#include "net/descriptors.h"
#include "net/event_loop.h"
#include "net/held_ports.h"
#include "net/lookup.h"
#include "net/signals.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <future>
#include <optional>
#include <string>

namespace wideep::net {
namespace {

TEST(Address, ReadsWhatItWrites) {
  for (const std::string text : {"10.0.0.7:80", "[::1]:8080", "localhost:0", "unix:/tmp/a.sock"}) {
    const auto address = parse_address(text);
    ASSERT_TRUE(address) << text;
    EXPECT_EQ(address->to_string(), text);
  }
}

TEST(Address, RefusesWhatIsNeitherHostAndPortNorPath) {
  for (const std::string text : {"", ":80", "host", "host:", "host:65536", "host:-1", "host:80x",
                                 "[::1:80", "[::1]", "::1:80", "unix:"}) {
    EXPECT_FALSE(parse_address(text)) << text;
  }
  EXPECT_FALSE(parse_address("unix:" + std::string(108, 'a')));
}

TEST(Address, KnowsLoopback) {
  EXPECT_TRUE(is_loopback({"127.0.0.1", 1, {}}));
  EXPECT_TRUE(is_loopback({"::1", 1, {}}));
  EXPECT_TRUE(is_loopback(Address::unix_socket("/tmp/x")));
  EXPECT_FALSE(is_loopback({"0.0.0.0", 1, {}}));
  EXPECT_FALSE(is_loopback({"10.0.0.1", 1, {}}));
}

TEST(Lookup, GivesTheAddressesOfANameAndANumberAsItIs) {
  const TimePoint later = real_clock().now() + std::chrono::seconds(60);
  for (const char* number : {"10.0.0.7", "::1"})
    EXPECT_EQ(*look_up(number, TimePoint{}), std::vector<std::string>{number});
  const HostAddresses here = look_up("localhost", later);
  ASSERT_TRUE(here) << here.error().message;
  for (const std::string& address : *here)
    EXPECT_TRUE(address == "127.0.0.1" || address == "::1") << address;
  // Too long for a name: nobody is asked, whatever name service this machine has.
  EXPECT_FALSE(look_up(std::string(64, 'x') + ".invalid", later));
}

TEST(Lookup, EndsAtTheDeadlineAndAnswersWhoeverAskedForTheSameName) {
  const HostAddresses at_once = look_up("localhost", TimePoint{});
  EXPECT_TRUE(at_once || at_once.error().code == ErrorCode::kTimeout) << at_once.error().message;
  LoopThread thread;
  std::promise<void> both;
  int num_answers = 0;
  for (int i = 0; i < 2; ++i)
    start_lookup(thread.loop(), "localhost", [&](const HostAddresses& addresses) {
      EXPECT_TRUE(thread.loop().in_loop_thread());
      EXPECT_TRUE(addresses);
      if (++num_answers == 2) both.set_value();
    });
  EXPECT_EQ(both.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
}

TEST(EventLoop, DropsWhatIsPostedFromOutsideAfterItsEnd) {
  std::function<void(std::function<void()>)> post;
  {
    EventLoop loop;
    post = loop.poster();
    post([&] { loop.stop(); });
    loop.run();
  }
  post([] { FAIL() << "there is no loop to run on"; });
}

TEST(EventLoop, RunsTasksInOrderOnItsOwnThread) {
  LoopThread thread;
  std::promise<std::vector<int>> done;
  std::vector<int> seen;
  for (int i = 0; i < 3; ++i)
    thread.loop().post([&seen, i] { seen.push_back(i); });
  thread.loop().post([&] {
    EXPECT_TRUE(thread.loop().in_loop_thread());
    done.set_value(seen);
  });
  EXPECT_EQ(done.get_future().get(), (std::vector<int>{0, 1, 2}));
  EXPECT_FALSE(thread.loop().in_loop_thread());
}

TEST(EventLoop, RunsDelayedTasksByTheirTime) {
  EventLoop loop;
  const TimePoint start = real_clock().now();
  std::optional<TimePoint> first;
  loop.post_after(std::chrono::minutes(10), [&] { loop.stop(); });
  loop.post_after(std::chrono::milliseconds(5), [&] {
    first = real_clock().now();
    loop.stop();
  });
  loop.run();
  ASSERT_TRUE(first.has_value()) << "the later one came first";
  EXPECT_GE(*first - start, std::chrono::milliseconds(5));
}

TEST(EventLoop, StopsWithTasksStillQueued) {
  EventLoop loop;
  loop.post_after(std::chrono::hours(1), [] { FAIL(); });
  loop.post([&] { loop.stop(); });
  loop.run();
}

TEST(Descriptors, AreRaisedToTheHardLimit) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(raise_descriptor_limit(), static_cast<int64_t>(limit.rlim_max));
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(limit.rlim_cur, limit.rlim_max);
}

TEST(SignalWatcher, TurnsASignalIntoAnEvent) {
  EventLoop loop;
  int seen = 0;
  const SignalWatcher watcher(loop, {SIGUSR1}, [&](int signal) {
    seen = signal;
    loop.stop();
  });
  loop.post([] { ::kill(::getpid(), SIGUSR1); });
  loop.run();
  EXPECT_EQ(seen, SIGUSR1);
}

TEST(Listen, TellsWhichPortTheKernelChose) {
  EventLoop loop;
  const auto listener = listen(loop, {"127.0.0.1", 0, {}}, {});
  ASSERT_TRUE(listener) << listener.error().message;
  EXPECT_NE(listener->address.port, 0);
  const auto second = listen(loop, listener->address, {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
}

TEST(HeldPorts, StayOursAndLetAProcessListen) {
  HeldPorts ports;
  const auto held = ports.hold("127.0.0.1");
  ASSERT_TRUE(held);
  EventLoop loop;
  HeldPorts others;
  for (int i = 0; i < 2; ++i) {  // a process that is started again listens again
    const auto listener = listen(loop, *held, {});
    ASSERT_TRUE(listener) << listener.error().message;
    EXPECT_EQ(listener->address.port, held->port);
    EXPECT_FALSE(others.hold("127.0.0.1", held->port)) << "somebody listens there";
  }
  EXPECT_FALSE(ports.hold("no.such.host.invalid"));
}

TEST(Listen, ReplacesADeadUnixSocketButNotALiveOneNorAFile) {
  const auto folder = std::filesystem::temp_directory_path() / fmt::format("wd{}", ::getpid());
  std::filesystem::create_directory(folder);
  const Address address = Address::unix_socket((folder / "s").string());
  EventLoop loop;
  {
    const auto first = listen(loop, address, {});
    ASSERT_TRUE(first) << first.error().message;
    EXPECT_FALSE(listen(loop, address, {}));
  }
  EXPECT_TRUE(listen(loop, address, {}));  // the file is still there, its owner is not
  const std::string file = (folder / "file").string();
  std::fclose(std::fopen(file.c_str(), "w"));
  EXPECT_FALSE(listen(loop, Address::unix_socket(file), {}));
  std::filesystem::remove_all(folder);
}

TEST(Listen, WantsAnIpAddress) {
  EventLoop loop;
  EXPECT_FALSE(listen(loop, {"no such host", 0, {}}, {}));
}

}  // namespace
}  // namespace wideep::net
