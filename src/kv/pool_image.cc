#include "kv/pool_image.h"

#include "base/rounding.h"

#include <atomic>
#include <utility>

namespace wideep::kv {
namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kBytesMax = int64_t{1} << 46;

}  // namespace

Result<PoolImage> PoolImage::create(KvLayout layout, int64_t num_blocks) {
  if (num_blocks <= 0 || num_blocks > kBlocksMax)
    return invalid_argument("{} KV blocks, allowed are 1 to {}", num_blocks, kBlocksMax);
  if (layout.groups.empty()) return invalid_argument("a KV layout without cache groups");
  PoolImage image;
  image.num_blocks_ = num_blocks;
  image.bytes_ = num_blocks * kGenerationBytes;
  for (const CacheGroup& group : layout.groups) {
    if (group.retention != Retention::kAll ||
        group.block_tokens != layout.groups.front().block_tokens)
      return invalid_argument("cache group '{}' needs a block pool of its own: {}", group.name,
                              layout.describe());
    if (group.block_bytes() <= 0)
      return invalid_argument("cache group '{}' has blocks of {} bytes", group.name,
                              group.block_bytes());
    if (group.block_bytes() > (kBytesMax - image.bytes_) / num_blocks)
      return invalid_argument("{} KV blocks of {} bytes are more than can be counted", num_blocks,
                              group.block_bytes());
    image.bytes_ = round_up(image.bytes_, kPage);
    image.group_offsets_.push_back(image.bytes_);
    image.bytes_ += num_blocks * group.block_bytes();
  }
  image.layout_ = std::move(layout);
  return image;
}

int64_t PoolImage::block_bytes() const {
  int64_t sum = 0;
  for (const CacheGroup& group : layout_.groups)
    sum += group.block_bytes();
  return sum;
}

// The fences pair with those of BlockPool::end_generation: whoever reads the old generation after
// its copy has not read a byte that was written for the new one.
uint64_t read_generation(const PoolImage& image, std::span<const std::byte> memory, BlockId block) {
  std::atomic_thread_fence(std::memory_order_acquire);
  const auto* word =
      reinterpret_cast<const uint64_t*>(memory.data() + image.generation_offset(block));
  const uint64_t generation = __atomic_load_n(word, __ATOMIC_ACQUIRE);
  return generation;
}

}  // namespace wideep::kv
