// Door and link on one machine: a rank is a thread that answers each byte with its number.
#include "launcher/host_door.h"

#include "launcher/host_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <string>

namespace wideep::launcher {
namespace {

using fabric::UniqueFd;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr seconds kPatience{30};  // of the tests

TimePoint patience() {
  return real_clock().now() + kPatience;
}

fabric::PresharedKey key_of(const char* secret) {
  return *fabric::PresharedKey::from_secret(secret);
}

// Serves at a Unix socket: what comes goes back, each byte plus the rank's number.
class FakeRank {
 public:
  FakeRank(const std::string& path, int32_t rank)
      : path_(path), listener_(*fabric::listen_at(net::Address::unix_socket(path))), rank_(rank) {
    thread_ = std::thread([this] { serve(); });
  }

  ~FakeRank() {
    is_stopping_ = true;
    auto last = fabric::connect_to(net::Address::unix_socket(path_), patience());
    EXPECT_TRUE(last);
    thread_.join();
  }

 private:
  void serve() {
    for (;;) {
      auto socket = fabric::accept_call(listener_.get(), patience());
      if (!socket || is_stopping_) return;
      const auto stream = fabric::plain_stream(std::move(*socket));
      std::byte byte{};
      while (fabric::read_all(*stream, std::span(&byte, 1), patience())) {
        byte = static_cast<std::byte>(std::to_integer<int>(byte) + rank_);
        if (!fabric::write_all(*stream, std::span(&byte, 1), patience())) break;
      }
    }
  }

  const std::string path_;
  UniqueFd listener_;
  const int32_t rank_;
  std::atomic<bool> is_stopping_{false};
  std::thread thread_;
};

class HostDoors : public testing::Test {
 protected:
  HostDoors() : folder_(testing::TempDir() + "/host_door_XXXXXX") {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
  }

  ~HostDoors() override { std::filesystem::remove_all(folder_); }

  // Of 4 ranks, 0 and 1 its own.
  std::unique_ptr<HostDoor> make_door(Duration liveness = kPatience,
                                      Duration patience = kPatience) {
    HostDoorOptions options{.listen = {.host = "127.0.0.1"},
                            .key = key_of("the secret of the group"),
                            .num_ranks = 4,
                            .own = {.first = 0, .count = 2},
                            .socket_of = [this](int32_t r) { return path("door", r); },
                            .on_change = [this] { note_change(); },
                            .liveness = liveness,
                            .patience = patience};
    if (address_.port != 0) options.listen = address_;
    auto door = HostDoor::create(std::move(options));
    EXPECT_TRUE(door) << door.error().message;
    address_ = (*door)->address();
    return *std::move(door);
  }

  HostLinkOptions link_options() {
    return {.door = address_,
            .key = key_of("the secret of the group"),
            .num_ranks = 4,
            .ranks = {.first = 2, .count = 2},
            .socket_of = [this](int32_t r) { return path("host", r); }};
  }

  std::string path(const char* side, int32_t rank) const {
    return folder_ + "/" + side + std::to_string(rank);
  }

  void note_change() {
    const std::scoped_lock lock(mutex_);
    changed_.notify_all();
  }

  // Waits until the door says so.
  void await_ready(const HostDoor& door, const std::vector<int32_t>& ranks) {
    std::unique_lock lock(mutex_);
    const bool is_so =
        changed_.wait_for(lock, kPatience, [&] { return door.ready_ranks() == ranks; });
    EXPECT_TRUE(is_so) << testing::PrintToString(door.ready_ranks());
  }

  // What rank `rank` answers to a byte, through the door; nothing if the connection ends.
  std::optional<int> ask(int32_t rank, int byte) {
    auto socket = fabric::connect_to(net::Address::unix_socket(path("door", rank)), patience());
    EXPECT_TRUE(socket) << socket.error().message;
    const auto stream = fabric::plain_stream(std::move(*socket));
    auto sent = static_cast<std::byte>(byte);
    if (!fabric::write_all(*stream, std::span(&sent, 1), patience())) return std::nullopt;
    if (!fabric::read_all(*stream, std::span(&sent, 1), patience())) return std::nullopt;
    return std::to_integer<int>(sent);
  }

  std::string folder_;
  net::Address address_;
  std::mutex mutex_;
  std::condition_variable changed_;
};

TEST_F(HostDoors, RanksOfAnotherHostAnswerHereOnceTheyAreReady) {
  const FakeRank two(path("host", 2), 2);
  const FakeRank three(path("host", 3), 3);
  const auto door = make_door();
  HostLink link(link_options());
  EXPECT_THAT(door->ready_ranks(), IsEmpty());
  link.set_ready({true, false});
  await_ready(*door, {2});
  link.set_ready({true, true});
  await_ready(*door, {2, 3});
  EXPECT_EQ(ask(2, 10), 12);
  EXPECT_EQ(ask(3, 10), 13);
  link.set_ready({false, true});
  await_ready(*door, {3});
}

TEST_F(HostDoors, ALargeAnswerComesWholeThoughNobodyReadsItAtFirst) {
  const UniqueFd listener = *fabric::listen_at(net::Address::unix_socket(path("host", 2)));
  const auto door = make_door();
  HostLink link(link_options());
  link.set_ready({true, false});
  await_ready(*door, {2});
  std::vector<std::byte> sent(3 << 20);
  for (size_t i = 0; i < sent.size(); ++i)
    sent[i] = static_cast<std::byte>(i * i >> 7);
  std::thread rank([&] {
    auto socket = fabric::accept_call(listener.get(), patience());
    ASSERT_TRUE(socket) << socket.error().message;
    const auto stream = fabric::plain_stream(std::move(*socket));
    EXPECT_TRUE(fabric::write_all(*stream, sent, patience()));
  });  // and closes
  auto socket = fabric::connect_to(net::Address::unix_socket(path("door", 2)), patience());
  ASSERT_TRUE(socket);
  const auto stream = fabric::plain_stream(std::move(*socket));
  std::vector<std::byte> received(sent.size());
  EXPECT_TRUE(fabric::read_all(*stream, received, patience()));
  EXPECT_EQ(received, sent);
  std::byte more{};
  EXPECT_FALSE(fabric::read_all(*stream, std::span(&more, 1), patience())) << "it has ended";
  rank.join();
}

TEST_F(HostDoors, AHostThatDoesNotKnowTheKeyIsNotHeard) {
  const auto door = make_door();
  auto socket = fabric::connect_to(address_, patience());
  ASSERT_TRUE(socket);
  auto stream = fabric::tls_stream(std::move(*socket), fabric::TlsRole::kClient,
                                   key_of("the secret of somebody else"), patience());
  EXPECT_FALSE(stream);
  EXPECT_THAT(door->ready_ranks(), IsEmpty());
}

class RawHost {
 public:
  RawHost(const net::Address& door, const HostGreeting& greeting) {
    auto socket = fabric::connect_to(door, patience());
    EXPECT_TRUE(socket);
    auto made = fabric::tls_stream(std::move(*socket), fabric::TlsRole::kClient,
                                   key_of("the secret of the group"), patience());
    EXPECT_TRUE(made) << made.error().message;
    stream_ = *std::move(made);
    EXPECT_TRUE(fabric::write_all(*stream_, encode(greeting), patience()));
  }

  fabric::Stream& stream() { return *stream_; }

  // What the door says: "" is a welcome.
  std::string verdict() {
    uint16_t length = 0;
    EXPECT_TRUE(
        fabric::read_all(*stream_, std::as_writable_bytes(std::span(&length, 1)), patience()));
    std::string text(length, '\0');
    EXPECT_TRUE(fabric::read_all(*stream_, std::as_writable_bytes(std::span(text)), patience()));
    return text;
  }

 private:
  std::unique_ptr<fabric::Stream> stream_;
};

TEST_F(HostDoors, TwoHostsWithTheSameRanksAreNotBothLetIn) {
  const auto door = make_door();
  RawHost first(address_, {.num_ranks = 4, .ranks = {.first = 2, .count = 2}});
  EXPECT_EQ(first.verdict(), "");
  RawHost second(address_, {.num_ranks = 4, .ranks = {.first = 3, .count = 1}});
  EXPECT_THAT(second.verdict(), testing::HasSubstr("rank 3"));
  RawHost own(address_, {.num_ranks = 4, .ranks = {.first = 1, .count = 1}});
  EXPECT_THAT(own.verdict(), testing::HasSubstr("rank 1"));
}

TEST_F(HostDoors, AHostThatFallsSilentIsLost) {
  const auto door = make_door(seconds{3});
  RawHost host(address_, {.num_ranks = 4, .ranks = {.first = 2, .count = 2}});
  EXPECT_EQ(host.verdict(), "");
  EXPECT_TRUE(fabric::write_all(host.stream(), encode_ready({true, true}), patience()));
  await_ready(*door, {2, 3});
  std::byte end{};
  EXPECT_FALSE(fabric::read_all(host.stream(), std::span(&end, 1), patience()));
  await_ready(*door, {});
}

TEST_F(HostDoors, AClientOfAHostThatIsAwayOrDoesNotCallBackIsLetGo) {
  const auto door = make_door(kPatience, seconds{3});
  EXPECT_EQ(ask(2, 1), std::nullopt) << "nobody has come";
  RawHost host(address_, {.num_ranks = 4, .ranks = {.first = 2, .count = 2}});
  EXPECT_EQ(host.verdict(), "");
  EXPECT_EQ(ask(2, 1), std::nullopt) << "it does not call back";
}

TEST_F(HostDoors, ALinkFindsADoorThatCameBack) {
  const FakeRank two(path("host", 2), 2);
  auto door = make_door();
  HostLink link(link_options());
  link.set_ready({true, false});
  await_ready(*door, {2});
  door.reset();
  door = make_door();
  await_ready(*door, {2});
  EXPECT_EQ(ask(2, 40), 42);
}

TEST(HostWire, RefusesWhatCannotBe) {
  const auto greeting = [](int32_t num_ranks, int32_t first, int32_t count) {
    const auto bytes = encode(HostGreeting{.num_ranks = num_ranks, .ranks = {first, count}});
    return parse_host_greeting(bytes, 4).has_value();
  };
  EXPECT_TRUE(greeting(4, 0, 4));
  EXPECT_TRUE(greeting(4, 3, 1));
  EXPECT_FALSE(greeting(5, 3, 1));
  EXPECT_FALSE(greeting(4, 4, 1));
  EXPECT_FALSE(greeting(4, 3, 2));
  EXPECT_FALSE(greeting(4, -1, 1));
  EXPECT_FALSE(greeting(4, 1, 0));
  EXPECT_FALSE(greeting(4, 1, INT32_MAX));
  EXPECT_FALSE(greeting(4, INT32_MAX, 1));
  auto bytes = encode(HostGreeting{.num_ranks = 4, .ranks = {0, 1}});
  bytes[0] ^= std::byte{1};
  EXPECT_FALSE(parse_host_greeting(bytes, 4).has_value());
  const RankRange ranks{.first = 2, .count = 2};
  EXPECT_EQ(parse_host_call(encode(HostCall{.id = 7, .rank = 3}), ranks)->id, 7U);
  EXPECT_FALSE(parse_host_call(encode(HostCall{.id = 7, .rank = 1}), ranks).has_value());
  EXPECT_FALSE(parse_ready(std::array{std::byte{2}}).has_value());
}

}  // namespace
}  // namespace wideep::launcher
