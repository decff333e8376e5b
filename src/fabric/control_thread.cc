#include "fabric/control_thread.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>

namespace wideep::fabric {

Status ControlThread::open() {
  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return error(ErrorCode::kExhausted, "control thread: {}", strerrordesc_np(errno));
  WD_ASSIGN_OR_RETURN(stop_event_, Event::create());
  return watch(stop_event_.fd(), EPOLLIN, [this](uint32_t) { is_stopping_ = true; });
}

void ControlThread::start(Duration period, std::function<void()> on_tick) {
  thread_ = std::thread([this, period, tick = std::move(on_tick)] { run(period, tick); });
}

void ControlThread::stop() {
  if (!thread_.joinable()) return;
  stop_event_.set();
  thread_.join();
}

Status ControlThread::watch(int fd, uint32_t epoll_events, OnEvents on_events) {
  epoll_event event{.events = epoll_events, .data = {.fd = fd}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return error(ErrorCode::kExhausted, "control thread: watch: {}", strerrordesc_np(errno));
  watched_[fd] = std::make_shared<OnEvents>(std::move(on_events));
  return {};
}

void ControlThread::unwatch(int fd) {
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  watched_.erase(fd);
}

void ControlThread::change(int fd, uint32_t epoll_events) {
  epoll_event event{.events = epoll_events, .data = {.fd = fd}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void ControlThread::after(Duration delay, std::function<void()> on_time) {
  timers_.push_back({real_clock().now() + delay, std::move(on_time)});
}

void ControlThread::run(Duration period, const std::function<void()>& on_tick) {
  const Clock& clock = real_clock();
  TimePoint next_tick = clock.now();
  while (!is_stopping_) {
    TimePoint until = next_tick;
    for (const Timer& timer : timers_)
      until = std::min(until, timer.time);
    wait_for_events(until);
    fire_timers();
    // Events first: after a long stop this thread shall hear what was said before it judges.
    if (clock.now() < next_tick) continue;
    on_tick();
    next_tick = clock.now() + period;
  }
}

void ControlThread::wait_for_events(TimePoint until) {
  std::array<epoll_event, 64> events;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - real_clock().now());
  const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                               static_cast<int>(std::max<int64_t>(left.count(), 0)));
  for (int i = 0; i < count; ++i) {
    const auto watched = watched_.find(events[static_cast<size_t>(i)].data.fd);
    if (watched == watched_.end()) continue;  // unwatched by an earlier event of this round
    const std::shared_ptr<OnEvents> call = watched->second;
    (*call)(events[static_cast<size_t>(i)].events);
  }
}

void ControlThread::fire_timers() {
  const TimePoint now = real_clock().now();
  const auto due = std::ranges::partition(timers_, [&](const Timer& t) { return t.time > now; });
  const std::vector<Timer> fired(std::make_move_iterator(due.begin()),
                                 std::make_move_iterator(due.end()));
  timers_.erase(due.begin(), due.end());
  for (const Timer& timer : fired)
    timer.on_time();
}

}  // namespace wideep::fabric
