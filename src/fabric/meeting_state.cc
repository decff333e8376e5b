#include "fabric/meeting_state.h"

#include <utility>

namespace wideep::fabric {

Result<std::unique_ptr<MeetingState>> MeetingState::create() {
  WD_ASSIGN_OR_RETURN(Event woken, Event::create());
  WD_ASSIGN_OR_RETURN(Event has_failed, Event::create());
  return std::make_unique<MeetingState>(std::move(woken), std::move(has_failed));
}

void MeetingState::set_members(Membership members) {
  const std::scoped_lock lock(mutex_);
  members_ = std::move(members);
  changed_.notify_all();
}

void MeetingState::set_linked() {
  const std::scoped_lock lock(mutex_);
  is_linked_ = true;
  woken_.set();
}

void MeetingState::set_all_linked() {
  const std::scoped_lock lock(mutex_);
  all_linked_ = true;
  changed_.notify_all();
}

void MeetingState::fail(const Error& error) {
  const std::scoped_lock lock(mutex_);
  if (failure_) return;
  failure_ = error;
  has_failed_.set();
  woken_.set();
  changed_.notify_all();
}

void MeetingState::stop() {
  const std::scoped_lock lock(mutex_);
  is_stopped_ = true;
  woken_.set();
}

Status MeetingState::check() const {
  const std::scoped_lock lock(mutex_);
  if (failure_) return std::unexpected(*failure_);
  if (is_stopped_) return error(ErrorCode::kCancelled, "left the meeting");
  return {};
}

bool MeetingState::is_linked() const {
  const std::scoped_lock lock(mutex_);
  return is_linked_;
}

Result<Membership> MeetingState::await_members() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return members_ || failure_; });
  if (failure_) return std::unexpected(*failure_);
  return *members_;
}

Status MeetingState::await_all_linked() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return all_linked_ || failure_; });
  if (failure_) return std::unexpected(*failure_);
  return {};
}

Error MeetingState::await_cause(const Error& own, Duration patience) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience, [&] { return failure_.has_value(); });
  return failure_.value_or(own);
}

}  // namespace wideep::fabric
