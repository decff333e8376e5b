#include "net/event_loop.h"

#include "base/check.h"
#include "net/asio.h"

#include <utility>

namespace wideep::net {

EventLoop::EventLoop() : core_(std::make_unique<Core>()) {}

EventLoop::~EventLoop() = default;

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

void EventLoop::post_after(Duration delay, std::function<void()> task) {
  auto timer = std::make_unique<asio::steady_timer>(core_->context, delay);
  asio::steady_timer& running = *timer;
  running.async_wait([timer = std::move(timer), task = std::move(task)](error_code ec) {
    if (!ec) task();
  });
}

bool EventLoop::in_loop_thread() const {
  return core_->thread.load() == std::this_thread::get_id();
}

LoopThread::LoopThread() : thread_([this] { loop_.run(); }) {}

LoopThread::~LoopThread() {
  loop_.stop();
  thread_.join();
}

}  // namespace wideep::net
