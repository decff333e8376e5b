// modules: launcher
// What hosts and door of a group say to each other: greeting, call, readiness.
#include "launcher/host_wire.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideep::launcher;
  const auto bytes = std::as_bytes(std::span(data, size));
  constexpr int32_t kRanks = 8;
  if (size >= kGreetingBytes) {
    const auto greeting = parse_host_greeting(bytes.first<kGreetingBytes>(), kRanks);
    if (greeting) {
      const RankRange& ranks = greeting->ranks;
      if (ranks.first < 0 || ranks.count < 1 || ranks.first + ranks.count > kRanks) std::abort();
      if (!parse_host_greeting(encode(*greeting), kRanks)) std::abort();
    }
  }
  if (size >= kCallBytes) {
    const auto call = parse_host_call(bytes.first<kCallBytes>(), {.first = 2, .count = 3});
    if (call && (call->rank < 2 || call->rank > 4)) std::abort();
  }
  const auto ready = parse_ready(bytes);
  if (ready && !std::ranges::equal(encode_ready(*ready), bytes)) std::abort();
  return 0;
}
