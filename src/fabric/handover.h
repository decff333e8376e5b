// How the ranks of a node find each other and hand over their arenas.
//
// Every rank listens on a UNIX socket (an abstract name made of the group's token, the epoch and
// the rank), connects to the lower ranks of its node and is called by the higher ones. Both say who
// they are, pass the descriptor of their arena, and keep the connection: its end is how a death is
// noticed. The kernel vouches for the other end (SO_PEERCRED) before anything is told or given to
// it: only processes of the same user count.
// "Same host" means that this succeeds, never that two names are equal.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "fabric/arena.h"
#include "fabric/shared_memory.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace wideep::fabric {

// A rank of this node, as this rank holds it. For this rank itself only the arena.
struct LocalPeer {
  // Shared: ranks that are threads of one process map it once.
  std::shared_ptr<SharedMemory> memory;
  Arena arena;
  UniqueFd socket;   // SOCK_SEQPACKET; carries ControlMessage
  UniqueFd process;  // pidfd; none where the kernel cannot give one
};

struct LocalPeers {
  std::vector<LocalPeer> peers;  // [num_ranks]; without arena: on another node
};

// What peers of a node tell each other over the socket.
struct ControlMessage {
  enum class Kind : uint32_t { kLeaving = 1, kLost = 2 };
  Kind kind{};
  int32_t about = 0;  // the rank that is leaving or lost
  int32_t from = 0;   // who says so
};

struct HandoverOptions {
  uint64_t token = 0;  // of the group; equal on all ranks, hard to guess
  Duration timeout = std::chrono::seconds{30};
  Duration greeting_timeout = std::chrono::seconds{5};  // of a caller; then it is turned away
  int interrupt = -1;  // readable once waiting has become pointless (wait_limit.h); -1: none
};

// This rank as one process among others. kTimeout: not all ranks of the node came.
Result<LocalPeers> hand_over(const Shape& shape, RankId rank, const HandoverOptions& options);

// All ranks of one node as threads of this process: [rank]. Every arena is mapped once.
Result<std::vector<LocalPeers>> hand_over_in_process(const Shape& shape);

// The greeting, exposed for its tests and fuzzer: who calls, and that both mean the same group.
struct Greeting {
  uint64_t magic = 0;
  uint64_t token = 0;
  uint64_t shape_hash = 0;
  int64_t rank = 0;
};

inline constexpr uint64_t kGreetingMagic = 0x3176656f61686557;
Result<RankId> parse_greeting(std::span<const std::byte> bytes, const Greeting& own, int32_t ranks);

}  // namespace wideep::fabric
