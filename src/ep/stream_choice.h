// Whether rows that other ranks read are better written past the caches (Kernels::stream) or
// plainly, where they all fit into the cache that the machine says its cores share.
//
// Nobody else can tell: cores of a virtual machine share a cache or not, whatever it says, and from
// one hour to the next (docs/decisions/0015). So it is measured: in one of every kTryEvery
// exchanges some pieces of rows are copied into memory that others have read by either way, and
// timed; the best of a way's last few pieces counts, because others may have the processor in
// between.
// The bits are the same either way, so ranks need not agree. Thread: the engine thread.
#pragma once

#include "base/clock.h"

#include <array>
#include <cstdint>

namespace wideep::ep {

class StreamChoice {
 public:
  // Before rows of an exchange are written, so many bytes; `fits`: all that is exchanged stays in
  // the cache.
  void open(int64_t bytes, bool fits);

  // In this exchange.
  bool streams() const { return streams_; }

  // Pieces of this exchange are to be copied by either way, and timed.
  bool is_trial() const { return is_trial_; }

  // It took so long to copy a piece of so many bytes.
  void record(bool is_streamed, int64_t bytes, Duration spent);

  static constexpr int64_t kBytesMin = 16 << 10;  // fewer tell nothing
  static constexpr int64_t kTryEvery = 16;
  static constexpr int64_t kPieces = 3;  // of a way

 private:
  // The last pieces of one way.
  struct Measured {
    int64_t count = 0;
    std::array<double, kPieces> ns_per_byte{};

    double best() const;
  };

  std::array<Measured, 2> measured_;  // [streams]
  int64_t num_exchanges_ = 0;         // that could be trials
  bool streams_ = true;
  bool is_trial_ = false;
};

}  // namespace wideep::ep
