#include "fabric/stream.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

namespace wideep::fabric {
namespace {

using std::chrono::milliseconds;

// While it lives this process can open nothing more.
class NoDescriptors {
 public:
  NoDescriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const int next = dup(STDERR_FILENO);
    close(next);
    const rlimit none{.rlim_cur = static_cast<rlim_t>(next), .rlim_max = before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  }

  ~NoDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }

  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;

 private:
  rlimit before_{};
};

TEST(Stream, ACallForWhichThereIsNoDescriptorIsAnErrorOrWaits) {
  const auto listener = listen_at({.host = "127.0.0.1"});
  ASSERT_TRUE(listener.has_value());
  const net::Address address = *local_address(listener->get(), {.host = "127.0.0.1"});
  const TimePoint deadline = real_clock().now() + std::chrono::seconds{20};
  EXPECT_FALSE(accept_patiently(listener->get(), -1).has_value()) << "nobody has called";
  const auto caller = connect_to(address, deadline);
  ASSERT_TRUE(caller.has_value());
  {
    const NoDescriptors none;
    const TimePoint start = real_clock().now();
    EXPECT_FALSE(accept_patiently(listener->get(), -1).has_value());
    EXPECT_GE(real_clock().now() - start, milliseconds{90}) << "a loop around it would spin";
    const auto call = accept_call(listener->get(), deadline);
    ASSERT_FALSE(call.has_value());
    EXPECT_EQ(call.error().code, ErrorCode::kExhausted);
  }
  EXPECT_TRUE(accept_patiently(listener->get(), -1).has_value());
}

TEST(WaitLimit, EndsWhenItIsInterrupted) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const UniqueFd interrupt(ends[0]);
  const UniqueFd other(ends[1]);
  const WaitLimit limit(real_clock().now() + std::chrono::seconds{20}, interrupt.get());
  EXPECT_FALSE(limit.has_passed());
  EXPECT_TRUE(limit.await(other.get(), POLLOUT));
  ASSERT_EQ(write(other.get(), "x", 1), 1);
  EXPECT_TRUE(limit.has_passed());
  EXPECT_FALSE(limit.await(other.get(), POLLOUT)) << "waiting has become pointless";
}

}  // namespace
}  // namespace wideep::fabric
