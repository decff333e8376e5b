#include "engine/engine_loop.h"

#include "base/log.h"

#include <utility>

namespace wideep::engine {

EngineLoop::EngineLoop(Engine& engine,
                       ep::AllToAll& all_to_all,
                       const Clock& clock,
                       EngineLoopOptions options)
    : engine_(engine), all_to_all_(all_to_all), clock_(clock), options_(std::move(options)) {
  if (options_.wake) engine_.set_waker(options_.wake);
  thread_ = std::thread([this] { run(); });
}

EngineLoop::~EngineLoop() {
  stop();
}

void EngineLoop::run() {
  while (!stop_) {
    if (!engine_.has_work()) {
      if (const Status slept = sleep(); !slept) return fail(slept.error());
      continue;
    }
    step_begin_ = clock_.now().time_since_epoch().count();
    const Status status = engine_.step(all_to_all_);
    step_begin_ = 0;
    if (!status) return fail(status.error());
    if (options_.on_step) options_.on_step(engine_.stats());
    const std::scoped_lock lock(mutex_);
    changed_.notify_all();
  }
  engine_.fail_all({ErrorCode::kUnavailable, "the engine is shutting down"});
  const std::scoped_lock lock(mutex_);
  changed_.notify_all();
}

Status EngineLoop::sleep() {
  if (!options_.sleep) {
    engine_.wait_for_work(options_.idle_wait);
    return {};
  }
  WD_ASSIGN_OR_RETURN(const bool is_open, options_.sleep(clock_.now() + options_.idle_wait));
  if (is_open) engine_.wake();
  return {};
}

void EngineLoop::fail(const Error& reason) {
  log_error("the step failed, {} requests end: {}", engine_.num_unfinished(), reason.message);
  engine_.drain();
  engine_.fail_all(reason);
  {
    const std::scoped_lock lock(mutex_);
    failure_ = reason;
    changed_.notify_all();
  }
  if (options_.on_failure) options_.on_failure(reason);
}

Status EngineLoop::drain(Duration timeout) {
  engine_.drain();
  std::unique_lock lock(mutex_);
  if (changed_.wait_for(lock, timeout, [&] { return engine_.num_unfinished() == 0; })) return {};
  return error(ErrorCode::kTimeout, "{} requests have not ended in time", engine_.num_unfinished());
}

Status EngineLoop::await_idle(Duration timeout) {
  std::unique_lock lock(mutex_);
  if (changed_.wait_for(lock, timeout, [&] { return failure_ || !engine_.has_work(); })) return {};
  return error(ErrorCode::kTimeout, "other ranks still have work");
}

void EngineLoop::stop() {
  engine_.drain();
  stop_ = true;
  engine_.wake();
  if (thread_.joinable()) thread_.join();
  engine_.set_waker({});
}

Duration EngineLoop::step_age() const {
  const TimePoint::rep begin = step_begin_;
  return begin == 0 ? Duration::zero() : clock_.now().time_since_epoch() - Duration(begin);
}

std::optional<Error> EngineLoop::failure() const {
  const std::scoped_lock lock(mutex_);
  return failure_;
}

}  // namespace wideep::engine
