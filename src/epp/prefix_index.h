// The approximate prefix cache: a guess at which endpoint holds which prompt prefix, learnt from
// where requests were sent. The same hashes as llm-d's approx-prefix-cache-producer:
//   h(-1) = XXH64(model ‖ cache_salt);  c(i) = XXH64(token ids of block i, little-endian u32);
//   h(i) = XXH64(LE64(c(i)) ‖ LE64(h(i-1)));  a last partial block counts as a block.
// Prompts that come as text are taken as pseudo-tokens of four bytes each.
// Thread: any; the table is sharded by hash, each endpoint's recency list has its own lock.
#pragma once

#include "base/result.h"
#include "epp/plugin.h"

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <unordered_map>
#include <vector>

namespace wideep::epp {

struct PrefixIndexOptions {
  bool auto_tune = true;           // capacity from the endpoint's own block count, when it tells
  int64_t block_size_tokens = 16;  // raised to 64 where tokens are estimated
  int64_t tokens_to_match_max = 131072;     // maxPrefixTokensToMatch
  int64_t blocks_to_match_max = 2048;       // maxPrefixBlocksToMatch
  int64_t lru_capacity_per_server = 31250;  // hashes remembered per endpoint
};

class PrefixIndex final : public PreRequest {
 public:
  static constexpr int64_t kEstimatedBlockTokensMin = 64;

  explicit PrefixIndex(PrefixIndexOptions options) : options_(options) {}

  // Hashes of the request and the match of every endpoint; computed once per request and kept in
  // the context.
  const PickContext::PrefixMatch& match(PickContext& context) const;

  void on_routed(PickContext& context, const Endpoint& endpoint, std::string_view profile) override;
  // Forgets endpoints that are not in `alive`.
  void keep_only(std::span<const int32_t> alive);
  int64_t size() const;

  std::vector<uint64_t> hashes(const PickRequest& request, int64_t* block_tokens) const;

 private:
  static constexpr size_t kNumShards = 64;

  struct Shard {
    mutable std::shared_mutex mutex;
    std::unordered_map<uint64_t, std::vector<int32_t>> holders;  // endpoint ids
  };

  struct Recency {
    std::mutex mutex;
    std::list<uint64_t> order;  // newest first
    std::unordered_map<uint64_t, std::list<uint64_t>::iterator> places;
  };

  Shard& shard(uint64_t hash) const { return shards_[hash % kNumShards]; }

  std::shared_ptr<Recency> recency_of(int32_t endpoint);
  int64_t capacity(const Endpoint& endpoint, int64_t block_tokens) const;
  void remove_holder(uint64_t hash, int32_t endpoint);

  PrefixIndexOptions options_;
  mutable std::array<Shard, kNumShards> shards_;
  std::mutex recencies_mutex_;
  // Shared with requests that are learning while an endpoint goes away.
  std::unordered_map<int32_t, std::shared_ptr<Recency>> recencies_;
};

}  // namespace wideep::epp
