// How the ranks of a group come together. All others call rank 0, the leader. When all are there
// each learns who is who and links to the others; when all have linked, all go on.
//
// From its call to that moment a rank and the leader give each other signs of life. So a rank that
// dies or stops on the way is named everywhere, within the times of those that are at work: before
// all are there it is forgotten and may come again, then the meeting ends for all. Strangers at the
// leader's port hold up nobody.
//
// Thread: one; signs of life come from a thread of the meeting's own.
#pragma once

#include "base/result.h"
#include "fabric/event.h"
#include "fabric/membership.h"
#include "fabric/tls.h"
#include "fabric/unique_fd.h"

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

namespace wideep::fabric {

struct MeetingOptions {
  net::Address leader;  // where rank 0 listens and all others call
  Introduction self;
  uint64_t epoch = 1;  // of the leader; the others learn it
  std::optional<PresharedKey> key;
  Duration timeout = std::chrono::seconds{120};  // for all to come; then, for all to link
  Duration liveness_deadline = std::chrono::seconds{3};
  Duration patience = std::chrono::seconds{5};  // of the leader, with a caller who says nothing
};

// What passes between a meeting and its thread.
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

class Meeting {
 public:
  // Rank 0 listens; the others call, again and again until it answers or the time is over.
  static Result<std::unique_ptr<Meeting>> begin(MeetingOptions options);

  Meeting(std::unique_ptr<MeetingState> state, std::thread thread)
      : state_(std::move(state)), thread_(std::move(thread)) {}

  ~Meeting();

  // Blocks until all are there. kTimeout: not all came, by name. kInvalidArgument: the leader
  // refuses this rank, with both sides named. kPeerLost: the leader is gone.
  Result<Membership> members() { return state_->await_members(); }

  // Readable once the meeting has failed: whom this rank waits for may never come.
  int interrupt() const { return state_->has_failed().fd(); }

  // This rank has linked with all others; blocks until all have. kPeerLost, kTimeout.
  Status all_linked();
  // This rank could not link, and tells. Why: somebody else's end, if that comes out in a moment.
  Error give_up(const Error& error);

 private:
  std::unique_ptr<MeetingState> state_;
  std::thread thread_;
};

}  // namespace wideep::fabric
