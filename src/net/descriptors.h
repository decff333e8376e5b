// How many sockets a process may have open.
#pragma once

#include <cstdint>

namespace wideep::net {

// Raises the soft limit of open files to the hard one, which is far above the usual 1024, and
// returns what it is now. For main functions of servers.
int64_t raise_descriptor_limit();

}  // namespace wideep::net
