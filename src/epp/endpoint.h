// What the picker chooses among: endpoints, what is known of them, and the snapshot a decision is
// taken on.
//
// A snapshot is immutable and shared; discovery and scraping publish new ones. An endpoint's live
// counters (requests in flight from here) are in EndpointLoad, shared by all snapshots that list
// it.
#pragma once

#include "base/clock.h"
#include "net/address.h"

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::epp {

// What one scrape of /metrics said.
struct EndpointMetrics {
  double waiting = 0;         // requests queued
  double running = 0;         // requests in the batch
  double kv_cache_usage = 0;  // 0 to 1
  int64_t block_size = 0;     // tokens; 0: not told
  int64_t num_blocks = 0;
  TimePoint updated{};  // when it was read; the epoch: never
};

// What this picker itself sent to an endpoint. Thread: any.
struct EndpointLoad {
  std::atomic<int64_t> active_requests{0};
};

using Labels = std::map<std::string, std::string, std::less<>>;

// The label that says what an endpoint does, and its values, as a set of bits.
inline constexpr std::string_view kRoleLabel = "llm-d.ai/role";

enum RoleBits : uint8_t {
  kNoRole = 1,  // no such label
  kPrefillRole = 2,
  kDecodeRole = 4,
  kEncodeRole = 8,
};

// "prefill-decode" and "both" are both; a value that is not known is no bit.
uint8_t role_bits(const Labels& labels);

struct Endpoint {
  std::string name;  // namespace/name: unique
  net::Address address;
  std::string host_port;  // as headers carry it
  // Shared by all snapshots: they are copied whenever metrics come.
  std::shared_ptr<const Labels> labels;
  uint8_t roles = kNoRole;  // role_bits(labels)
  EndpointMetrics metrics;
  // Shared: snapshots come and go, the counters stay with the endpoint.
  std::shared_ptr<EndpointLoad> load = std::make_shared<EndpointLoad>();
  // Small number, for indexing: stable while the endpoint exists, then given to another.
  int32_t id = 0;

  const std::string* label(std::string_view key) const {
    if (labels == nullptr) return nullptr;
    const auto it = labels->find(key);
    return it == labels->end() ? nullptr : &it->second;
  }
};

struct Snapshot {
  std::vector<Endpoint> endpoints;
};

}  // namespace wideep::epp
