#include "launcher/host_wire.h"

#include "base/byte_codec.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <chrono>

namespace wideep::launcher {
namespace {

constexpr uint64_t kMagic = 0x31726f6f64706577;  // "wepdoor1"
constexpr std::chrono::seconds kLastBytes{1};

// Bytes on their way from one end to the other.
struct Way {
  fabric::Stream& from;
  fabric::Stream& to;
  std::array<std::byte, 16 * 1024> buffer;
  size_t begin = 0;
  size_t end = 0;
  bool is_open = true;  // more may come

  bool is_empty() const { return begin == end; }

  // Moves what can be moved now; whether anything has. An end that fails closes both ways.
  bool move() {
    bool moved = false;
    if (is_empty() && is_open) {
      const Result<size_t> got = from.read(buffer);
      is_open = got.has_value();
      begin = 0;
      end = got.value_or(0);
      moved = end > 0;
    }
    if (!is_empty()) {
      const Result<size_t> put = to.write(std::span(buffer).subspan(begin, end - begin));
      is_open = is_open && put.has_value();
      begin = put ? begin + *put : end;
      moved = moved || (put && *put > 0);
    }
    return moved;
  }
};

}  // namespace

std::string RankRange::describe() const {
  return count == 1 ? fmt::format("rank {}", first)
                    : fmt::format("ranks {} to {}", first, first + count - 1);
}

std::array<std::byte, kGreetingBytes> encode(const HostGreeting& greeting) {
  ByteWriter out;
  out.number(kMagic);
  out.number(greeting.kind);
  out.number(greeting.num_ranks);
  out.number(greeting.ranks.first);
  out.number(greeting.ranks.count);
  out.number(greeting.call);
  std::array<std::byte, kGreetingBytes> bytes{};
  std::ranges::copy(out.out(), bytes.begin());
  return bytes;
}

Result<HostGreeting> parse_host_greeting(std::span<const std::byte, kGreetingBytes> bytes,
                                         int32_t num_ranks) {
  ByteReader in(bytes);
  if (in.number<uint64_t>() != kMagic) return invalid_argument("no host of a group");
  HostGreeting greeting;
  greeting.kind = in.number<HostGreeting::Kind>();
  if (greeting.kind != HostGreeting::Kind::kHost && greeting.kind != HostGreeting::Kind::kCall)
    return invalid_argument("a greeting of kind {}", static_cast<uint32_t>(greeting.kind));
  greeting.num_ranks = in.number<int32_t>();
  if (greeting.num_ranks != num_ranks)
    return invalid_argument("the host expects {} ranks, the door {}", greeting.num_ranks,
                            num_ranks);
  greeting.ranks.first = in.number<int32_t>();
  greeting.ranks.count = in.number<int32_t>();
  if (greeting.ranks.first < 0 || greeting.ranks.count < 1 ||
      greeting.ranks.count > num_ranks - std::min(greeting.ranks.first, num_ranks))
    return invalid_argument("{} ranks from {} of {}", greeting.ranks.count, greeting.ranks.first,
                            num_ranks);
  greeting.call = in.number<uint64_t>();
  return greeting;
}

std::array<std::byte, kCallBytes> encode(const HostCall& call) {
  ByteWriter out;
  out.number(call.id);
  out.number(call.rank);
  out.number(uint32_t{0});
  std::array<std::byte, kCallBytes> bytes{};
  std::ranges::copy(out.out(), bytes.begin());
  return bytes;
}

Result<HostCall> parse_host_call(std::span<const std::byte, kCallBytes> bytes,
                                 const RankRange& ranks) {
  ByteReader in(bytes);
  HostCall call;
  call.id = in.number<uint64_t>();
  call.rank = in.number<int32_t>();
  if (!ranks.contains(call.rank))
    return invalid_argument("a call for rank {}, here are {}", call.rank, ranks.describe());
  return call;
}

std::vector<std::byte> encode_ready(const std::vector<bool>& ready) {
  std::vector<std::byte> bytes;
  for (const bool is_ready : ready)
    bytes.push_back(is_ready ? std::byte{1} : std::byte{0});
  return bytes;
}

Result<std::vector<bool>> parse_ready(std::span<const std::byte> bytes) {
  std::vector<bool> ready;
  for (const std::byte byte : bytes) {
    if (byte > std::byte{1})
      return invalid_argument("rank is ready: {}", std::to_integer<int>(byte));
    ready.push_back(byte == std::byte{1});
  }
  return ready;
}

std::optional<fabric::PresharedKey> door_key(const std::optional<fabric::PresharedKey>& group_key) {
  if (!group_key) return std::nullopt;
  return group_key->derive("door");
}

void relay(fabric::Stream& one, fabric::Stream& other) {
  Way ways[2] = {{.from = one, .to = other, .buffer = {}},
                 {.from = other, .to = one, .buffer = {}}};
  while (ways[0].is_open && ways[1].is_open) {
    bool moved = false;
    for (Way& way : ways)
      moved = way.move() || moved;
    if (moved || !ways[0].is_open || !ways[1].is_open) continue;
    // An end that nothing is wanted of is not looked at: its hanging up would be told for ever.
    pollfd ends[2] = {{.fd = -1, .events = 0, .revents = 0}, {.fd = -1, .events = 0, .revents = 0}};
    for (const Way& way : ways) {
      const fabric::Stream& wanted = way.is_empty() ? way.from : way.to;
      pollfd& end = ends[&wanted == &one ? 0 : 1];
      end.fd = wanted.fd();
      end.events |= static_cast<short>(way.is_empty() ? POLLIN : POLLOUT);
    }
    poll(ends, 2, -1);
  }
  for (const Way& way : ways)
    static_cast<void>(
        fabric::write_all(way.to, std::span(way.buffer).subspan(way.begin, way.end - way.begin),
                          real_clock().now() + kLastBytes));
}

void wait_for_either(const fabric::Stream& stream, const fabric::Event& event, TimePoint deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - real_clock().now());
  pollfd both[2] = {{.fd = stream.fd(), .events = POLLIN, .revents = 0},
                    {.fd = event.fd(), .events = POLLIN, .revents = 0}};
  poll(both, 2, static_cast<int>(std::clamp<int64_t>(left.count(), 0, 60'000)));
  if (both[1].revents != 0) event.clear();
}

}  // namespace wideep::launcher
