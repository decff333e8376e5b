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
#include "fabric/membership.h"
#include "fabric/tls.h"

#include <chrono>
#include <memory>
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

class MeetingState;  // meeting_state.h

class Meeting {
 public:
  // Rank 0 listens; the others call, again and again until it answers or the time is over.
  static Result<std::unique_ptr<Meeting>> begin(MeetingOptions options);

  Meeting(std::unique_ptr<MeetingState> state, std::thread thread);
  ~Meeting();

  // Blocks until all are there. kTimeout: not all came, by name. kInvalidArgument: the leader
  // refuses this rank, with both sides named. kPeerLost: the leader is gone.
  Result<Membership> members();

  // Readable once the meeting has failed: whom this rank waits for may never come.
  int interrupt() const;

  // This rank has linked with all others; blocks until all have. kPeerLost, kTimeout.
  Status all_linked();
  // This rank could not link, and tells. Why: somebody else's end, if that comes out in a moment.
  Error give_up(const Error& error);

 private:
  std::unique_ptr<MeetingState> state_;
  std::thread thread_;
};

}  // namespace wideep::fabric
