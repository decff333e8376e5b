// What the door on the first host and the other hosts of a group say to each other.
//
//   other host ── HostGreeting{kHost, its ranks} ──► door      the link: stays
//              ◄── welcome, or why not ───────────
//              ── which of its ranks are ready ────►            on every change, and as a beat
//              ◄── HostCall{rank, id} ────────────              "a request for your rank"
//   other host ── HostGreeting{kCall, id} ────────► door        a connection: from here on HTTP
//
// Only the other host connects: it listens nowhere. With a key both kinds of connection are TLS.
// Bytes that come are checked here before anybody believes them.
#pragma once

#include "base/result.h"
#include "fabric/event.h"
#include "fabric/stream.h"
#include "fabric/tls.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace wideep::launcher {

// The ranks of one host.
struct RankRange {
  int32_t first = 0;
  int32_t count = 0;

  bool contains(int32_t rank) const { return rank >= first && rank < first + count; }

  bool overlaps(const RankRange& other) const {
    return first < other.first + other.count && other.first < first + count;
  }

  std::string describe() const;  // "ranks 2 to 3"
};

struct HostGreeting {
  enum class Kind : uint32_t { kHost = 1, kCall = 2 };
  Kind kind = Kind::kHost;
  int32_t num_ranks = 0;  // of all hosts
  RankRange ranks;        // of the one that calls
  uint64_t call = 0;      // kCall: HostCall::id
};

// "A request for your rank: connect, and name this id." Ids are hard to guess.
struct HostCall {
  uint64_t id = 0;
  int32_t rank = 0;
};

inline constexpr size_t kGreetingBytes = 32;
inline constexpr size_t kCallBytes = 16;
inline constexpr size_t kRefusalBytesMax = 500;

std::array<std::byte, kGreetingBytes> encode(const HostGreeting& greeting);
// kInvalidArgument: no greeting of this protocol, or of a group of another size.
Result<HostGreeting> parse_host_greeting(std::span<const std::byte, kGreetingBytes> bytes,
                                         int32_t num_ranks);
std::array<std::byte, kCallBytes> encode(const HostCall& call);
// kInvalidArgument: a rank that this host has not.
Result<HostCall> parse_host_call(std::span<const std::byte, kCallBytes> bytes,
                                 const RankRange& ranks);
// One byte for each rank of the host.
std::vector<std::byte> encode_ready(const std::vector<bool>& ready);
Result<std::vector<bool>> parse_ready(std::span<const std::byte> bytes);

// The key of what passes between hosts and door: another purpose than the ranks' own.
std::optional<fabric::PresharedKey> door_key(const std::optional<fabric::PresharedKey>& group_key);

// Passes bytes both ways until either end closes; what has come by then still goes on.
void relay(fabric::Stream& one, fabric::Stream& other);

// Until there is something to read, `event` is set (it is cleared then), or the deadline.
void wait_for_either(const fabric::Stream& stream, const fabric::Event& event, TimePoint deadline);

}  // namespace wideep::launcher
