#include "fabric/wait_limit.h"

#include <vector>

namespace wideep::fabric {
namespace {

constexpr std::chrono::milliseconds kPollMax = std::chrono::hours{24};  // poll() counts an int

int poll_ms(Duration time) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(time);
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, kPollMax.count()));
}

}  // namespace

bool WaitLimit::has_passed() const {
  return real_clock().now() >= deadline_ || is_interrupted(Duration::zero());
}

bool WaitLimit::await(std::span<pollfd> any) const {
  std::vector<pollfd> polled(any.begin(), any.end());
  polled.push_back({.fd = interrupt_, .events = POLLIN, .revents = 0});
  for (;;) {
    const Duration left = deadline_ - real_clock().now();
    if (left <= Duration::zero()) return false;
    if (poll(polled.data(), polled.size(), poll_ms(left)) <= 0) continue;
    if (polled.back().revents != 0) return false;
    std::copy(polled.begin(), polled.end() - 1, any.begin());
    return true;
  }
}

bool WaitLimit::await(int fd, short events) const {
  pollfd one{.fd = fd, .events = events, .revents = 0};
  return await(std::span(&one, 1));
}

void WaitLimit::pause(Duration time) const {
  static_cast<void>(is_interrupted(std::min(time, deadline_ - real_clock().now())));
}

bool WaitLimit::is_interrupted(Duration patience) const {
  pollfd interrupt{.fd = interrupt_, .events = POLLIN, .revents = 0};
  return poll(&interrupt, 1, poll_ms(patience)) > 0;
}

}  // namespace wideep::fabric
