// Bytes between the ranks of a group: one-sided, completed only by words in the receiver's memory.
//
// Each rank owns one arena per epoch, laid out alike on all ranks. A rank writes into a peer's
// arena with put(), then tells it with signal(): whoever sees the signal sees every put that the
// same rank issued before it to any rank of the same node. Puts between two signals may land in any
// order. On one node arenas are mapped, so that peers read and write each other's rows in place.
//
// Signals live in lines of 64 bytes, one per (channel, source), written by that source only and
// never cleared: a reader waits for the sequence number it expects, stale ones are simply others.
//
// Whatever waits, waits here: wait() ends with the condition true, with kPeerLost naming the rank
// that is gone, or with kTimeout naming who is missing. After kPeerLost the epoch is over: the
// group forms a new one with new arenas, and whoever wakes up late writes into dead memory.
//
// Thread: the engine thread, except where a method says any.
#pragma once

#include "base/clock.h"
#include "base/function_ref.h"
#include "base/ids.h"
#include "base/result.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::fabric {

enum class ChannelId : int32_t {};  // what a signal is about; meaning is the user's

// What all ranks of an epoch agree on.
struct Shape {
  std::vector<NodeId> node_of;  // [num_ranks], the node of each rank
  uint64_t epoch = 1;           // grows with every membership; 0 is never used
  int64_t arena_bytes = 0;      // of each rank
  int32_t num_channels = 1;

  int32_t num_ranks() const { return static_cast<int32_t>(node_of.size()); }

  bool same_node(RankId a, RankId b) const;
  // The rank of `target`'s node through which `source` of another node reaches that node: its
  // ranks take the sources in turn.
  RankId door(RankId source, RankId target) const;
  // Nodes in order of their lowest rank, each with its ranks ascending.
  std::vector<std::vector<RankId>> ranks_by_node() const;
};

inline constexpr int32_t kRanksMax = 1024;
inline constexpr int32_t kChannelsMax = 16;
inline constexpr int64_t kArenaBytesMax = int64_t{1} << 40;
Status validate(const Shape& shape);

// A message of one line. `count` may be raised for the same purpose by later signals; a reader that
// sees a count sees everything put before it.
struct Signal {
  uint64_t seq = 0;
  uint64_t count = 0;
  std::array<uint64_t, 5> words{};
};

struct PeerState {
  enum class Life { kAlive, kLeft, kLost };  // left: said goodbye, its work for the epoch was done
  Life life = Life::kAlive;
  Duration silence{};          // since the last sign of life
  std::string reason;          // how we know it is gone
  std::string_view transport;  // "self", "shm", "tcp", "ucx" or "sim"
};

// What a wait is for. Only ready() is called while all is well, often: it must be cheap. missing()
// may know what the last ready() found and no more.
struct Awaited {
  FunctionRef<bool()> ready;
  FunctionRef<std::string()> what;             // "combine of layer 3, seq 17"
  FunctionRef<std::vector<RankId>()> missing;  // from whom nothing has come
};

// What this rank has sent to other nodes by puts and signals, frame headers included; heartbeats
// are not counted, so that the numbers follow from the traffic alone.
struct WireCounters {
  uint64_t bytes_sent = 0;
  uint64_t frames_sent = 0;
};

class Fabric {
 public:
  virtual ~Fabric() = default;

  virtual RankId rank() const = 0;
  virtual const Shape& shape() const = 0;
  virtual const Clock& clock() const = 0;

  // This rank's arena, zero at first, aligned to 64 bytes at least.
  virtual std::span<std::byte> arena() = 0;
  // The arena of a rank of this node (or this rank's own); empty for ranks of other nodes.
  virtual std::span<std::byte> mapped(RankId peer) = 0;

  // Copies bytes to arena offset `offset` of `peer`; `bytes` may be reused on return. Out of range
  // is a bug (CHECK).
  virtual Status put(RankId peer, int64_t offset, std::span<const std::byte> bytes) = 0;
  // Signals of one (peer, channel) arrive in order. `peer` may be this rank. Any thread, but one at
  // a time for each channel, and in simulation only the rank's own.
  virtual Status signal(RankId peer, ChannelId channel, const Signal& signal) = 0;
  // The latest signal of `peer` on `channel` in this epoch; nothing before the first. Any thread.
  virtual std::optional<Signal> poll(RankId peer, ChannelId channel) const = 0;

  // Blocks until awaited.ready(). kPeerLost: a rank died, of which the others are told, or one of
  // awaited.missing() has left; kTimeout: `deadline` passed, not counting the time for which this
  // rank was stopped. Any thread, as above.
  virtual Status wait(const Awaited& awaited, TimePoint deadline) = 0;
  // Makes a wait look at ready() again. Any thread.
  virtual void wake() = 0;

  virtual PeerState peer_state(RankId peer) const = 0;  // any thread
  virtual WireCounters wire() const = 0;                // any thread
};

// The error of a wait that ended badly: op, who is gone or missing, age of the last sign of life.
// `lost` is the rank whose death ended it; none for a timeout.
Error wait_error(const Fabric& fabric, const Awaited& awaited, const RankId* lost);

}  // namespace wideep::fabric
