#include "fabric/connection_threads.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <future>
#include <utility>

namespace wideep::fabric {
namespace {

std::pair<UniqueFd, UniqueFd> sockets() {
  std::array<int, 2> ends{};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// Blocks until the connection ends.
void read_to_the_end(const UniqueFd& socket) {
  char byte = 0;
  while (recv(socket.get(), &byte, 1, 0) > 0) {
  }
}

TEST(ConnectionThreads, RefuseOneMoreThanAllowedUntilOneHasEnded) {
  ConnectionThreads threads(2);
  auto [a, a_far] = sockets();
  auto [b, b_far] = sockets();
  std::promise<void> a_ended;
  ASSERT_TRUE(threads.start(std::move(a), 0, [&](UniqueFd socket) {
    read_to_the_end(socket);
    a_ended.set_value();
  }));
  ASSERT_TRUE(threads.start(std::move(b), 0, [](UniqueFd socket) { read_to_the_end(socket); }));
  const auto starts_another = [&] {
    auto [near, far] = sockets();
    return threads.start(std::move(near), 0, [](const UniqueFd&) {});
  };
  const Status refused = starts_another();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kExhausted);
  a_far.reset();
  a_ended.get_future().wait();
  // Its thread has yet to say so itself.
  while (!starts_another())
    std::this_thread::yield();
}

TEST(ConnectionThreads, CutThoseWithATagAndNoOthers) {
  std::promise<void> cut;
  std::atomic<bool> other_ended = false;
  ConnectionThreads threads(4);
  auto [a, a_far] = sockets();
  auto [b, b_far] = sockets();
  ASSERT_TRUE(threads.start(std::move(a), 1, [&](UniqueFd socket) {
    read_to_the_end(socket);
    cut.set_value();
  }));
  ASSERT_TRUE(threads.start(std::move(b), 2, [&](UniqueFd socket) {
    read_to_the_end(socket);
    other_ended = true;
  }));
  threads.cut(1);
  cut.get_future().wait();
  EXPECT_FALSE(other_ended);
  threads.end_all();
  EXPECT_TRUE(other_ended);
}

}  // namespace
}  // namespace wideep::fabric
