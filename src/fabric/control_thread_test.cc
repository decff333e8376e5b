#include "fabric/control_thread.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <atomic>
#include <chrono>
#include <future>

namespace wideep::fabric {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

TEST(ControlThread, CallsBackForWhatItWatchesAndTicks) {
  ControlThread control;
  ASSERT_TRUE(control.open().has_value());
  const UniqueFd event(eventfd(0, EFD_NONBLOCK));
  std::promise<void> heard;
  ASSERT_TRUE(control
                  .watch(event.get(), EPOLLIN,
                         [&](uint32_t) {
                           control.unwatch(event.get());
                           heard.set_value();
                         })
                  .has_value());
  std::promise<void> ticked;
  std::atomic<int> ticks = 0;
  control.start(milliseconds{1}, [&] {
    if (++ticks == 3) ticked.set_value();
  });
  ticked.get_future().wait();
  eventfd_write(event.get(), 1);
  heard.get_future().wait();
  control.stop();
  const int at_stop = ticks;
  EXPECT_EQ(ticks, at_stop);
}

TEST(ControlThread, ATimerFiresOnceAndAfterItsTime) {
  ControlThread control;
  ASSERT_TRUE(control.open().has_value());
  std::promise<TimePoint> fired;
  TimePoint set;
  std::atomic<bool> is_set = false;
  control.start(milliseconds{1}, [&] {
    if (is_set.exchange(true)) return;
    set = real_clock().now();
    control.after(milliseconds{5}, [&] { fired.set_value(real_clock().now()); });
  });
  const TimePoint when = fired.get_future().get();
  control.stop();
  EXPECT_GE(when - set, milliseconds{5});
}

TEST(ControlThread, StopsAtOnceHoweverLongItsPeriod) {
  ControlThread control;
  ASSERT_TRUE(control.open().has_value());
  std::promise<void> ticked;
  control.start(hours{1}, [&] { ticked.set_value(); });
  ticked.get_future().wait();
  control.stop();
  control.stop();
}

}  // namespace
}  // namespace wideep::fabric
