#include "engine/inbox.h"

#include <utility>

namespace wideep::engine {

Status Inbox::submit(std::unique_ptr<Generation> generation) {
  const int64_t num_tokens = generation->sequence().num_tokens();
  {
    const std::scoped_lock lock(mutex_);
    if (closed_) return error(ErrorCode::kUnavailable, "the engine takes no new requests");
    if (num_queued_ >= limits_.requests_max)
      return error(ErrorCode::kExhausted, "{} requests are waiting, at most {} may", num_queued_,
                   limits_.requests_max);
    if (num_queued_tokens_ + num_tokens > limits_.tokens_max && num_queued_ > 0)
      return error(ErrorCode::kExhausted,
                   "requests of {} tokens are waiting, with {} more there would be over {}",
                   num_queued_tokens_, num_tokens, limits_.tokens_max);
    ++num_queued_;
    num_queued_tokens_ += num_tokens;
    live_.insert(generation->sequence().id());
    mail_.submitted.push_back(std::move(generation));
  }
  announce();
  return {};
}

void Inbox::cancel(SequenceId id) {
  {
    const std::scoped_lock lock(mutex_);
    if (live_.erase(id) == 0) return;  // so that repeated calls do not pile up
    mail_.cancelled.push_back(id);
  }
  announce();
}

void Inbox::wake() {
  {
    const std::scoped_lock lock(mutex_);
    mail_.woken = true;
  }
  announce();
}

void Inbox::lease_ended(kv::LeaseId lease) {
  {
    const std::scoped_lock lock(mutex_);
    mail_.leases.push_back(lease);
  }
  announce();
}

void Inbox::pull_ended(kv::PullOutcome outcome) {
  {
    const std::scoped_lock lock(mutex_);
    mail_.pulls.push_back(std::move(outcome));
  }
  announce();
}

void Inbox::set_waker(std::function<void()> waker) {
  const std::scoped_lock lock(mutex_);
  waker_ = std::move(waker);
}

void Inbox::announce() {
  arrived_.notify_one();
  const std::scoped_lock lock(mutex_);  // so that nobody is called after set_waker({})
  if (waker_) waker_();
}

void Inbox::close() {
  const std::scoped_lock lock(mutex_);
  closed_ = true;
}

Inbox::Mail Inbox::drain() {
  const std::scoped_lock lock(mutex_);
  return std::exchange(mail_, {});
}

void Inbox::leave_queue(int64_t num_tokens) {
  const std::scoped_lock lock(mutex_);
  --num_queued_;
  num_queued_tokens_ -= num_tokens;
}

void Inbox::forget(SequenceId id) {
  const std::scoped_lock lock(mutex_);
  live_.erase(id);
}

bool Inbox::has_mail() const {
  const std::scoped_lock lock(mutex_);
  return has_mail_locked();
}

void Inbox::wait(Duration timeout) {
  std::unique_lock lock(mutex_);
  arrived_.wait_for(lock, timeout, [&] { return has_mail_locked(); });
}

int64_t Inbox::num_submitted() const {
  const std::scoped_lock lock(mutex_);
  return static_cast<int64_t>(mail_.submitted.size());
}

int64_t Inbox::num_queued_tokens() const {
  const std::scoped_lock lock(mutex_);
  return num_queued_tokens_;
}

}  // namespace wideep::engine
