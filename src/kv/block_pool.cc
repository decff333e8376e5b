#include "kv/block_pool.h"

#include "base/check.h"

#include <utility>

namespace wideep::kv {

Result<std::unique_ptr<BlockPool>> BlockPool::create(KvLayout layout, int64_t num_blocks) {
  if (num_blocks <= 0 || num_blocks > kBlocksMax)
    return invalid_argument("{} KV blocks, allowed are 1 to {}", num_blocks, kBlocksMax);
  if (layout.groups.empty()) return invalid_argument("a KV layout without cache groups");
  for (const CacheGroup& group : layout.groups) {
    if (group.retention != Retention::kAll ||
        group.block_tokens != layout.groups.front().block_tokens)
      return invalid_argument("cache group '{}' needs a block pool of its own: {}", group.name,
                              layout.describe());
    if (group.block_bytes() <= 0)
      return invalid_argument("cache group '{}' has blocks of {} bytes", group.name,
                              group.block_bytes());
  }
  return std::make_unique<BlockPool>(Private{}, std::move(layout), num_blocks);
}

BlockPool::BlockPool(Private, KvLayout layout, int64_t num_blocks)
    : layout_(std::move(layout)), blocks_(static_cast<size_t>(num_blocks)) {
  for (const CacheGroup& group : layout_.groups)
    memory_.emplace_back(static_cast<size_t>(group.block_bytes() * num_blocks));
  free_.reserve(blocks_.size());
  for (int64_t block = num_blocks - 1; block >= 0; --block)
    free_.push_back(BlockId{static_cast<int32_t>(block)});
}

BlockPool::Block& BlockPool::at(BlockId block) {
  WD_CHECK(index(block) >= 0 && index(block) < num_blocks());
  return blocks_[static_cast<size_t>(index(block))];
}

const BlockPool::Block& BlockPool::at(BlockId block) const {
  return const_cast<BlockPool*>(this)->at(block);
}

Status BlockPool::take(int64_t count,
                       std::vector<BlockId>& out,
                       FunctionRef<void(BlockId)> evicted) {
  if (count > num_available())
    return error(ErrorCode::kExhausted, "{} KV blocks wanted, {} available", count,
                 num_available());
  for (int64_t i = 0; i < count; ++i) {
    BlockId block{};
    if (!free_.empty()) {
      block = free_.back();
      free_.pop_back();
    } else {
      block = BlockId{oldest_idle_};
      evicted(block);
      remove_idle(block);
      ++at(block).generation;
      at(block).cached = false;
    }
    at(block).references = 1;
    out.push_back(block);
  }
  return {};
}

void BlockPool::share(BlockId block) {
  Block& b = at(block);
  WD_CHECK(b.references > 0 || b.cached);
  if (b.references == 0) remove_idle(block);
  ++b.references;
}

void BlockPool::release(BlockId block) {
  Block& b = at(block);
  WD_CHECK(b.references > 0);
  if (--b.references > 0) return;
  if (b.cached) {
    append_idle(block);
  } else {
    ++b.generation;
    free_.push_back(block);
  }
}

void BlockPool::set_cached(BlockId block, bool cached) {
  WD_CHECK(at(block).references > 0);
  at(block).cached = cached;
}

std::span<std::byte> BlockPool::memory(size_t group, BlockId block) {
  WD_DCHECK(index(block) >= 0 && index(block) < num_blocks());
  const auto bytes = static_cast<size_t>(layout_.groups[group].block_bytes());
  return memory_[group].bytes().subspan(static_cast<size_t>(index(block)) * bytes, bytes);
}

void BlockPool::prefault() {
  for (AlignedBuffer& memory : memory_)
    memory.prefault();
}

void BlockPool::append_idle(BlockId block) {
  Block& b = at(block);
  b.older = newest_idle_;
  b.newer = kNone;
  if (newest_idle_ != kNone)
    at(BlockId{newest_idle_}).newer = index(block);
  else
    oldest_idle_ = index(block);
  newest_idle_ = index(block);
  ++num_idle_cached_;
}

void BlockPool::remove_idle(BlockId block) {
  Block& b = at(block);
  (b.older != kNone ? at(BlockId{b.older}).newer : oldest_idle_) = b.newer;
  (b.newer != kNone ? at(BlockId{b.newer}).older : newest_idle_) = b.older;
  b.older = b.newer = kNone;
  --num_idle_cached_;
}

}  // namespace wideep::kv
