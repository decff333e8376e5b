#include "net/event_loop.h"

#include "base/check.h"
#include "net/asio.h"

#include <future>
#include <mutex>
#include <utility>

namespace wideep::net {

// The way to a loop from outside, closed when the loop ends.
class EventLoop::Door {
 public:
  explicit Door(EventLoop& loop) : loop_(&loop) {}

  void post(std::function<void()> task) {
    const std::scoped_lock lock(mutex_);
    if (loop_ != nullptr) loop_->post(std::move(task));
  }

  void close() {
    const std::scoped_lock lock(mutex_);
    loop_ = nullptr;
  }

 private:
  std::mutex mutex_;
  EventLoop* loop_;
};

EventLoop::EventLoop() : core_(std::make_unique<Core>()), door_(std::make_shared<Door>(*this)) {}

EventLoop::~EventLoop() {
  door_->close();
}

void EventLoop::run() {
  core_->thread = std::this_thread::get_id();
  const auto keep_running = asio::make_work_guard(core_->context);
  core_->context.run();
  core_->thread = std::thread::id();
}

void EventLoop::stop() {
  core_->context.stop();
}

void EventLoop::post(std::function<void()> task) {
  asio::post(core_->context, std::move(task));
}

std::function<void(std::function<void()> task)> EventLoop::poster() {
  return [door = door_](std::function<void()> task) { door->post(std::move(task)); };
}

void EventLoop::post_after(Duration delay, std::function<void()> task) {
  auto timer = std::make_unique<asio::steady_timer>(core_->context, delay);
  asio::steady_timer& running = *timer;
  running.async_wait([timer = std::move(timer), task = std::move(task)](error_code ec) {
    if (!ec) task();
  });
}

void EventLoop::run_and_wait(const std::function<void()>& task) {
  if (!is_running() || in_loop_thread()) return task();
  std::promise<void> done;
  post([&] {
    task();
    done.set_value();
  });
  done.get_future().wait();
}

void EventLoop::settle(const std::function<bool()>& is_settled) {
  constexpr int kRoundsMax = 1000;
  bool settled = !is_running() || in_loop_thread();
  for (int round = 0; round < kRoundsMax && !settled; ++round)
    run_and_wait([&] { settled = is_settled(); });
}

bool EventLoop::is_running() const {
  return core_->thread.load() != std::thread::id() && !core_->context.stopped();
}

bool EventLoop::in_loop_thread() const {
  return core_->thread.load() == std::this_thread::get_id();
}

LoopThread::LoopThread() : thread_([this] { loop_.run(); }) {
  // From here on the loop counts as running.
  std::promise<void> running;
  loop_.post([&] { running.set_value(); });
  running.get_future().wait();
}

LoopThread::~LoopThread() {
  loop_.stop();
  thread_.join();
}

}  // namespace wideep::net
