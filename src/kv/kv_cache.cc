#include "kv/kv_cache.h"

#include <utility>

namespace wideep::kv {

KvCache::KvCache(std::unique_ptr<BlockPool> pool, PrefixCaching caching)
    : pool_(std::move(pool)), caching_(caching), index_(pool_->num_blocks()) {}

PrefixMatch KvCache::match(std::span<const api::BlockHash> names) const {
  PrefixMatch match;
  for (const api::BlockHash& name : names) {
    const PrefixEntry entry = index_.find(name);
    if (entry.presence == Presence::kLoading) match.loader = entry.loader;
    if (entry.presence != Presence::kPresent) break;
    match.blocks.push_back(entry.block);
    if (pool_->num_references(entry.block) == 0) ++match.num_idle;
  }
  return match;
}

void KvCache::share(const PrefixMatch& match, std::vector<BlockId>& table) {
  for (const BlockId block : match.blocks) {
    pool_->share(block);
    table.push_back(block);
  }
}

Status KvCache::take(int64_t count, std::vector<BlockId>& table) {
  return pool_->take(count, table, [this](BlockId evicted) { index_.erase(evicted); });
}

void KvCache::announce(BlockId block, const api::BlockHash& name, SequenceId loader) {
  if (caching_ == PrefixCaching::kOff) return;
  index_.insert(name, {.presence = Presence::kLoading, .block = block, .loader = loader});
}

void KvCache::publish(BlockId block, const api::BlockHash& name) {
  if (caching_ == PrefixCaching::kOff) return;
  if (index_.has_name(block))
    index_.set_present(block);
  else if (!index_.insert(name, {.presence = Presence::kPresent, .block = block}))
    return;  // a twin was first: this block is forgotten with its last reference
  pool_->set_cached(block, true);
}

void KvCache::give_back(std::vector<BlockId>& table) {
  for (; !table.empty(); table.pop_back()) {
    if (index_.presence_of(table.back()) == Presence::kLoading) index_.erase(table.back());
    pool_->release(table.back());
  }
}

}  // namespace wideep::kv
