#include "kv/block_pool.h"

#include "base/check.h"

#include <atomic>
#include <utility>

namespace wideep::kv {

Result<std::unique_ptr<BlockPool>> BlockPool::create(KvLayout layout,
                                                     int64_t num_blocks,
                                                     PoolMemory memory) {
  WD_ASSIGN_OR_RETURN(PoolImage image, PoolImage::create(std::move(layout), num_blocks));
  fabric::SharedMemory shared;
  if (memory == PoolMemory::kShared) {
    WD_ASSIGN_OR_RETURN(
        shared, fabric::SharedMemory::create("wideep-kv", image.bytes(),
                                             {.populate = false, .others_may_write = false}));
  }
  return std::make_unique<BlockPool>(Private{}, std::move(image), std::move(shared));
}

BlockPool::BlockPool(Private, PoolImage image, fabric::SharedMemory shared)
    : image_(std::move(image)),
      shared_(std::move(shared)),
      blocks_(static_cast<size_t>(image_.num_blocks())) {
  if (shared_.fd() < 0) private_ = AlignedBuffer(static_cast<size_t>(image_.bytes()));
  memory_ = shared_.fd() < 0 ? private_.bytes() : shared_.bytes();
  free_.reserve(blocks_.size());
  for (int64_t block = image_.num_blocks() - 1; block >= 0; --block) {
    free_.push_back(BlockId{static_cast<int32_t>(block)});
    end_generation(free_.back());
  }
}

BlockPool::Block& BlockPool::at(BlockId block) {
  WD_CHECK(index(block) >= 0 && index(block) < num_blocks());
  return blocks_[subscript(block)];
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
      end_generation(block);
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
    end_generation(block);
    free_.push_back(block);
  }
}

void BlockPool::set_cached(BlockId block, bool cached) {
  WD_CHECK(at(block).references > 0);
  at(block).cached = cached;
}

// A reader elsewhere that sees any byte written from now on sees the new generation too.
void BlockPool::end_generation(BlockId block) {
  auto* word = reinterpret_cast<uint64_t*>(memory_.data() + image_.generation_offset(block));
  __atomic_store_n(word, *word + 1, __ATOMIC_RELEASE);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

Status BlockPool::prefault() {
  if (shared_.fd() >= 0) return shared_.populate();
  private_.prefault();
  return {};
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
