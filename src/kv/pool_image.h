// Where things lie in the memory of a block pool, the same in every process that maps it:
//
//   [generation of each block, 8 bytes]  [blocks of group 0]  [blocks of group 1]  …
//
// each part at a multiple of 4096 bytes.
#pragma once

#include "base/ids.h"
#include "base/result.h"
#include "kv/layout.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace wideep::kv {

class PoolImage {
 public:
  static constexpr int64_t kBlocksMax = int64_t{1} << 30;

  // kInvalidArgument: no blocks or more than kBlocksMax; no group; groups with different
  // block_tokens, or that do not keep all tokens; more bytes than can be counted.
  static Result<PoolImage> create(KvLayout layout, int64_t num_blocks);

  const KvLayout& layout() const { return layout_; }

  int64_t num_blocks() const { return num_blocks_; }

  int64_t bytes() const { return bytes_; }

  // Of one block in all groups: what a pull moves.
  int64_t block_bytes() const;

  int64_t generation_offset(BlockId block) const { return index(block) * kGenerationBytes; }

  int64_t block_offset(size_t group, BlockId block) const {
    return group_offsets_[group] + index(block) * layout_.groups[group].block_bytes();
  }

  // A block in one group: [layer][token][token_bytes]. `memory`: bytes() of them.
  template <typename Byte>
  std::span<Byte> block(std::span<Byte> memory, size_t group, BlockId block) const {
    return memory.subspan(static_cast<size_t>(block_offset(group, block)),
                          static_cast<size_t>(layout_.groups[group].block_bytes()));
  }

 private:
  static constexpr int64_t kGenerationBytes = 8;

  KvLayout layout_;
  int64_t num_blocks_ = 0;
  int64_t bytes_ = 0;
  std::vector<int64_t> group_offsets_;
};

// The generation of a block in mapped memory. A reader that finds the same one before and after it
// has copied the block has copied one content (see BlockPool). Thread: any.
uint64_t read_generation(const PoolImage& image, std::span<const std::byte> memory, BlockId block);

}  // namespace wideep::kv
