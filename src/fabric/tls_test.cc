#include "fabric/tls.h"

#include "base/random.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace wideep::fabric {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

PresharedKey key_from(std::string_view secret) {
  return *PresharedKey::from_secret(secret);
}

const PresharedKey kKey = key_from("a secret of the group, long enough");

struct Ends {
  Result<std::unique_ptr<Stream>> client = error(ErrorCode::kUnavailable, "not tried");
  Result<std::unique_ptr<Stream>> server = error(ErrorCode::kUnavailable, "not tried");
};

std::array<UniqueFd, 2> sockets() {
  std::array<int, 2> ends;
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

Ends connect(const PresharedKey& client_key, const PresharedKey& server_key) {
  auto [client, server] = sockets();
  Ends ends;
  const TimePoint deadline = real_clock().now() + seconds{20};
  std::thread other([&, socket = std::move(server)]() mutable {
    ends.server = tls_stream(std::move(socket), TlsRole::kServer, server_key, deadline);
  });
  ends.client = tls_stream(std::move(client), TlsRole::kClient, client_key, deadline);
  other.join();
  return ends;
}

TEST(Tls, EndsWithTheSameKeyTalk) {
  Ends ends = connect(kKey, kKey);
  ASSERT_TRUE(ends.client.has_value()) << ends.client.error().message;
  ASSERT_TRUE(ends.server.has_value()) << ends.server.error().message;
  // More than the socket takes at once, so that writes are partial and records are continued.
  std::vector<std::byte> sent(3 << 20);
  Random random(1);
  for (std::byte& b : sent)
    b = static_cast<std::byte>(random.bits());
  std::vector<std::byte> received(sent.size());
  const TimePoint deadline = real_clock().now() + seconds{20};
  std::thread other([&] { EXPECT_TRUE(read_all(**ends.server, received, deadline).has_value()); });
  EXPECT_TRUE(write_all(**ends.client, sent, deadline).has_value());
  other.join();
  EXPECT_EQ(std::memcmp(sent.data(), received.data(), sent.size()), 0);
  ends.client->reset();
  std::array<std::byte, 1> more;
  const auto after = (*ends.server)->read(more);
  EXPECT_FALSE(after.has_value());
}

TEST(Tls, AnotherKeyGetsNoFurtherThanTheHandshake) {
  const Ends ends = connect(kKey, key_from("another secret, long enough"));
  EXPECT_FALSE(ends.client.has_value());
  EXPECT_FALSE(ends.server.has_value());
}

TEST(Tls, OneWhoDoesNotSpeakItIsRefused) {
  auto [client, server] = sockets();
  const std::string hello(200, 'x');
  EXPECT_EQ(send(client.get(), hello.data(), hello.size(), 0), 200);
  const auto stream =
      tls_stream(std::move(server), TlsRole::kServer, kKey, real_clock().now() + seconds{20});
  ASSERT_FALSE(stream.has_value());
  EXPECT_EQ(stream.error().code, ErrorCode::kUnavailable);
}

TEST(Tls, OneWhoSaysNothingIsGivenUpAtTheDeadline) {
  auto [client, server] = sockets();
  const auto stream =
      tls_stream(std::move(server), TlsRole::kServer, kKey, real_clock().now() + milliseconds{20});
  ASSERT_FALSE(stream.has_value());
  EXPECT_EQ(stream.error().code, ErrorCode::kTimeout);
}

TEST(PresharedKey, DependsOnTheSecretAndThePurpose) {
  EXPECT_FALSE(PresharedKey::from_secret("short").has_value());
  EXPECT_FALSE(PresharedKey::from_secret(std::string(20, ' ')).has_value());
  const auto bytes = [](const PresharedKey& key) {
    return std::vector<std::byte>(key.bytes().begin(), key.bytes().end());
  };
  EXPECT_EQ(bytes(key_from("0123456789abcdef")), bytes(key_from(" 0123456789abcdef\n")));
  EXPECT_NE(bytes(kKey.derive("links 1")), bytes(kKey.derive("links 2")));
  EXPECT_NE(bytes(kKey.derive("links 1")), bytes(kKey));
  EXPECT_EQ(bytes(kKey.derive("links 1")), bytes(kKey.derive("links 1")));
}

}  // namespace
}  // namespace wideep::fabric
