// How the ranks agree on each step without waiting for it: the wish for t + 1 goes out when step t
// begins, and the program of t is the maximum over the wishes that went out with t - 1.
//
// After a program in which nobody has work the group sleeps; the first to begin a step wakes the
// others, and that step, like the first of an epoch, has the default program: room for tokens_max.
//
// The word of step t lies in line t mod 4. A rank at step t needs the words of t - 1 from others
// that may be ahead: they can have sent t, and, if the program of t was to sleep, t + 1 too. They
// cannot have sent t + 2, because step t + 1 has exchanges that need this rank.
//
// Thread: the engine thread, except wake() and is_open().
#pragma once

#include "ep/exchange.h"

#include <atomic>
#include <cstdint>

namespace wideep::ep {

class StepAgreement {
 public:
  StepAgreement(fabric::Fabric& fabric, const ExchangeOptions& options, uint64_t config_hash);

  // See AllToAll::begin_step. A wish beyond tokens_max is cut to it.
  Result<StepProgram> begin(const StepWish& wish);

  // Blocks until another rank has opened the next step, wake() was called, or `until`.
  Status sleep_until(TimePoint until);
  void wake();
  // Another rank has opened the step that this rank would begin next.
  bool is_open() const;

  // Until when a wait within the step that has begun may last.
  TimePoint deadline() const;

  // Identifies the program in control words.
  uint64_t program_hash() const { return program_hash_; }

 private:
  StepProgram program(const StepWish& most) const;
  Result<StepProgram> agreed();
  void start_clock();

  fabric::Fabric& fabric_;
  const ExchangeOptions& options_;
  const uint64_t config_hash_;
  std::atomic<uint64_t> next_seq_;
  bool is_first_ = true;  // of the epoch or after a sleep
  uint64_t program_hash_ = 0;
  TimePoint start_{};
  Duration average_{};
  std::atomic<bool> woken_{false};
};

}  // namespace wideep::ep
