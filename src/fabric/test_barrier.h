// A barrier over a fabric, for tests.
#pragma once

#include "fabric/fabric.h"

#include <fmt/format.h>

#include <chrono>
#include <vector>

namespace wideep::fabric {

// Waits until everyone has signalled `seq` or later on the channel (a fast rank may be one ahead).
inline Status await_all(Fabric& fabric, ChannelId channel, uint64_t seq) {
  const auto missing = [&] {
    std::vector<RankId> behind;
    for (int32_t r = 0; r < fabric.shape().num_ranks(); ++r)
      if (fabric.poll(RankId{r}, channel).value_or(Signal{}).seq < seq) behind.push_back(RankId{r});
    return behind;
  };
  const auto ready = [&] { return missing().empty(); };
  const auto what = [&] { return fmt::format("signal {}", seq); };
  return fabric.wait({.ready = ready, .what = what, .missing = missing},
                     fabric.clock().now() + std::chrono::seconds{120});
}

}  // namespace wideep::fabric
