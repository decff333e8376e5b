// A whole group in one process, in virtual time: the fabric for tests.
//
// Ranks are threads that pass one baton: exactly one runs, until it waits or a fabric call lets
// another go first. The seed decides who goes next, how long every message takes and which of two
// puts lands first; so a seed run twice does the same thing, event for event, and report() carries
// a hash that proves it. An hour of waiting costs nothing.
//
// Faults happen at points of virtual time: a rank is killed (its calls fail with kCancelled and
// nothing of it is heard again), paused, or the links between two nodes are cut. What the others
// notice, and when, follows the rules of the real transports.
#pragma once

#include "base/function_ref.h"
#include "fabric/fabric.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

namespace wideep::fabric {

struct SimFault {
  enum class Kind { kKill, kPause, kCut };
  Kind kind = Kind::kKill;
  Duration at{};
  RankId rank{};      // kKill, kPause
  Duration length{};  // kPause
  NodeId node{};      // kCut: between `node` and `other`, for good
  NodeId other{};
};

struct SimOptions {
  uint64_t seed = 1;
  Duration delay_max = std::chrono::microseconds{50};  // a message takes 1 us up to this
  double straggler_chance = 0.01;                      // that it takes 20 times as long
  Duration compute_max = std::chrono::microseconds{20};
  double preempt_chance = 0.1;  // that a put or signal lets others run first
  Duration notice_max = std::chrono::milliseconds{50};   // of a death, by EOF
  Duration liveness_deadline = std::chrono::seconds{3};  // of a pause or a cut
  std::vector<SimFault> faults;
};

struct SimReport {
  std::vector<Status> status;  // [num_ranks], what each body returned
  uint64_t trace_hash = 0;     // of every event in order
  uint64_t num_events = 0;
  Duration virtual_time{};
};

// Runs `body` once on every rank of an epoch and returns when all have returned.
SimReport simulate(const Shape& shape,
                   const SimOptions& options,
                   FunctionRef<Status(Fabric&)> body);

}  // namespace wideep::fabric
