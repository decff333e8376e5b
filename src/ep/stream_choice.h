// Whether rows that other ranks read are better written past the caches (Kernels::stream) or
// plainly, where they all fit into the cache that the machine says its cores share.
//
// Nobody else can tell: cores of a virtual machine share a cache or not, whatever it says, and from
// one hour to the next (docs/decisions/0015). So it is measured: the rows that this rank writes for
// others are timed, and now and then an exchange tries the other way. The bits are the same either
// way, so ranks need not agree. Thread: the engine thread.
#pragma once

#include "base/clock.h"

#include <array>
#include <cstdint>

namespace wideep::ep {

class StreamChoice {
 public:
  // Before the rows of an exchange are written; `fits`: all that is exchanged stays in the cache.
  void open(bool fits);

  // In this exchange.
  bool streams() const { return streams_; }

  // It took so long to write so many bytes of rows. Few bytes tell nothing and are not counted.
  void record(int64_t bytes, Duration spent);

  static constexpr int64_t kBytesMin = 32 << 10;
  static constexpr int64_t kTryEvery = 64;  // exchanges

 private:
  struct Measured {
    int64_t count = 0;
    double ns_per_byte = 0;  // the last ones count most
  };

  bool streams_is_better() const;

  std::array<Measured, 2> measured_;  // [streams]
  int64_t num_measured_ = 0;
  bool streams_ = true;
  bool is_measured_ = false;  // this exchange
};

}  // namespace wideep::ep
