// What passes between a rank and the thread of its meeting. Thread: any.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "fabric/event.h"
#include "fabric/membership.h"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>

namespace wideep::fabric {

class MeetingState {
 public:
  static Result<std::unique_ptr<MeetingState>> create();

  MeetingState(Event woken, Event has_failed)
      : woken_(std::move(woken)), has_failed_(std::move(has_failed)) {}

  const Event& woken() const { return woken_; }  // for the thread: there is news

  const Event& has_failed() const { return has_failed_; }  // stays set

  void set_members(Membership members);
  void set_linked();  // this rank
  void set_all_linked();
  void fail(const Error& error);  // the first counts
  void stop();

  bool is_linked() const;
  Status check() const;  // it goes on
  Result<Membership> await_members();
  Status await_all_linked();
  // The failure, if there is one by then; else `own`.
  Error await_cause(const Error& own, Duration patience);

 private:
  Event woken_;
  Event has_failed_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Membership> members_;
  std::optional<Error> failure_;
  bool is_linked_ = false;
  bool all_linked_ = false;
  bool is_stopped_ = false;
};

}  // namespace wideep::fabric
