#include "epp/prefix_index.h"

#include "base/hash.h"

#include <algorithm>
#include <cstring>

namespace wideep::epp {
namespace {

uint64_t chain(uint64_t content, uint64_t parent) {
  const std::array<uint64_t, 2> words = {content,
                                         parent};  // little-endian on every machine we run on
  return xxh64(std::as_bytes(std::span(words)));
}

}  // namespace

std::vector<uint64_t> PrefixIndex::hashes(const PickRequest& request, int64_t* block_tokens) const {
  const bool estimated = request.tokens.empty();
  *block_tokens = estimated ? std::max(options_.block_size_tokens, kEstimatedBlockTokensMin)
                            : options_.block_size_tokens;
  std::span<const std::byte> bytes = estimated ? std::as_bytes(std::span(request.prompt))
                                               : std::as_bytes(std::span(request.tokens));
  const auto block_bytes = static_cast<size_t>(*block_tokens * kBytesPerToken);
  const auto blocks_max = static_cast<size_t>(
      std::min(options_.blocks_to_match_max, options_.tokens_to_match_max / *block_tokens));
  uint64_t parent = xxh64(request.model + request.cache_salt);
  std::vector<uint64_t> result;
  result.reserve(std::min(blocks_max, bytes.size() / block_bytes + 1));
  while (!bytes.empty() && result.size() < blocks_max) {
    const auto block = bytes.first(std::min(block_bytes, bytes.size()));
    bytes = bytes.subspan(block.size());
    uint64_t content = 0;
    if (block.size() % kBytesPerToken == 0) {
      content = xxh64(block);
    } else {  // the last pseudo-token is filled up with zeros
      std::vector<std::byte> padded(block.begin(), block.end());
      padded.resize((block.size() / kBytesPerToken + 1) * kBytesPerToken);
      content = xxh64(padded);
    }
    parent = chain(content, parent);
    result.push_back(parent);
  }
  return result;
}

const PickContext::PrefixMatch& PrefixIndex::match(PickContext& context) const {
  const auto [it, is_new] = context.prefix.try_emplace(this);
  PickContext::PrefixMatch& match = it->second;
  if (!is_new) return match;
  match.hashes = hashes(context.request, &match.block_tokens);
  for (const uint64_t hash : match.hashes) {
    const Shard& part = shard(hash);
    const std::shared_lock lock(part.mutex);
    const auto holders = part.holders.find(hash);
    if (holders == part.holders.end()) break;
    for (const int32_t endpoint : holders->second) {
      const auto i = static_cast<size_t>(endpoint);
      if (i >= match.matched_blocks.size()) match.matched_blocks.resize(i + 1);
      ++match.matched_blocks[i];
    }
  }
  return match;
}

std::shared_ptr<PrefixIndex::Recency> PrefixIndex::recency_of(int32_t endpoint) {
  const std::scoped_lock lock(recencies_mutex_);
  std::shared_ptr<Recency>& recency = recencies_[endpoint];
  if (recency == nullptr) recency = std::make_shared<Recency>();
  return recency;
}

int64_t PrefixIndex::capacity(const Endpoint& endpoint, int64_t block_tokens) const {
  const EndpointMetrics& metrics = endpoint.metrics;
  if (!options_.auto_tune || metrics.num_blocks <= 0 || metrics.block_size <= 0) {
    return options_.lru_capacity_per_server;
  }
  return std::max<int64_t>(1, metrics.num_blocks * metrics.block_size / block_tokens);
}

void PrefixIndex::on_routed(PickContext& context,
                            const Endpoint& endpoint,
                            std::string_view /*profile*/) {
  const PickContext::PrefixMatch& known = match(context);
  const auto limit = static_cast<size_t>(capacity(endpoint, known.block_tokens));
  const std::shared_ptr<Recency> recency = recency_of(endpoint.id);
  const std::scoped_lock lock(recency->mutex);
  for (const uint64_t hash : known.hashes) {
    if (const auto place = recency->places.find(hash); place != recency->places.end()) {
      recency->order.splice(recency->order.begin(), recency->order, place->second);
      continue;
    }
    recency->order.push_front(hash);
    recency->places[hash] = recency->order.begin();
    Shard& part = shard(hash);
    const std::unique_lock shard_lock(part.mutex);
    part.holders[hash].push_back(endpoint.id);
  }
  while (recency->order.size() > limit) {
    const uint64_t oldest = recency->order.back();
    recency->places.erase(oldest);
    recency->order.pop_back();
    remove_holder(oldest, endpoint.id);
  }
}

void PrefixIndex::remove_holder(uint64_t hash, int32_t endpoint) {
  Shard& part = shard(hash);
  const std::unique_lock lock(part.mutex);
  const auto holders = part.holders.find(hash);
  if (holders == part.holders.end()) return;
  std::erase(holders->second, endpoint);
  if (holders->second.empty()) part.holders.erase(holders);
}

void PrefixIndex::keep_only(std::span<const int32_t> alive) {
  std::vector<std::pair<int32_t, std::shared_ptr<Recency>>> gone;
  {
    const std::scoped_lock lock(recencies_mutex_);
    std::erase_if(recencies_, [&](const auto& entry) {
      if (std::ranges::find(alive, entry.first) != alive.end()) return false;
      gone.emplace_back(entry);
      return true;
    });
  }
  for (const auto& [endpoint, recency] : gone) {
    const std::scoped_lock lock(recency->mutex);
    for (const uint64_t hash : recency->order)
      remove_holder(hash, endpoint);
    recency->order.clear();
    recency->places.clear();
  }
}

int64_t PrefixIndex::size() const {
  int64_t sum = 0;
  for (const Shard& part : shards_) {
    const std::shared_lock lock(part.mutex);
    sum += static_cast<int64_t>(part.holders.size());
  }
  return sum;
}

}  // namespace wideep::epp
