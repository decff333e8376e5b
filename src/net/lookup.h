// The addresses that a host's name has, as the system's resolver tells them.
//
// The system's resolver cannot be interrupted and may take minutes when its servers are silent. So
// each lookup has a thread of its own, and one that nobody waits for any more is left to end by
// itself. Those who ask for the same name at the same time share a lookup; at most kLookupsMax run.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "net/event_loop.h"

#include <functional>
#include <string>
#include <vector>

namespace wideep::net {

inline constexpr int kLookupsMax = 64;

// IP addresses, at least one, each once, in the resolver's order. kNotFound: there is no such name,
// or it has no address. kUnavailable: the resolver could not find out. kExhausted: too many lookups
// are under way.
using HostAddresses = Result<std::vector<std::string>>;

// Waits for the answer. kTimeout at the deadline. Thread: any.
HostAddresses look_up(const std::string& host, TimePoint deadline);

// Calls `done` once, on the loop's thread, unless the loop is gone by then. Thread: any.
void start_lookup(EventLoop& loop,
                  const std::string& host,
                  std::function<void(const HostAddresses& addresses)> done);

}  // namespace wideep::net
