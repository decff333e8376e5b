// All KV memory of a rank, cut into blocks, and who uses them.
//
// A BlockId stands for the same `block_tokens` tokens in every cache group of the layout.
// A block is
//
//   free    ──take──▶  referenced  ──last release──▶  free, or cached if it was marked so
//   cached  ──share─▶  referenced;   cached ──take, when nothing is free──▶ referenced (evicted)
//
// References count the sequences (and leases) that use a block. A cached block keeps its contents
// until it is evicted, the one longest without a reference first. The generation of a block changes
// whenever its contents stop being valid, before anything new is written, so that whoever remembers
// (block, generation) can tell.
//
// Shared memory: other processes of the host may map the pool, for reading only (PoolImage says
// what lies where), and copy blocks without this rank's help.
//
// Ownership: the pool owns the memory from construction to destruction and never grows. Thread: the
// engine thread only, but for the const methods and memory(), whose bytes belong to whoever holds a
// reference to the block.
#pragma once

#include "base/function_ref.h"
#include "base/ids.h"
#include "base/memory.h"
#include "base/result.h"
#include "fabric/shared_memory.h"
#include "kv/layout.h"
#include "kv/pool_image.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace wideep::kv {

enum class PoolMemory : bool { kPrivate, kShared };

class BlockPool {
  struct Private {};

 public:
  // kInvalidArgument as PoolImage::create; kExhausted: no shared memory.
  static Result<std::unique_ptr<BlockPool>> create(KvLayout layout,
                                                   int64_t num_blocks,
                                                   PoolMemory memory = PoolMemory::kPrivate);

  const PoolImage& image() const { return image_; }

  const KvLayout& layout() const { return image_.layout(); }

  int64_t block_tokens() const { return layout().groups.front().block_tokens; }

  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()); }

  // Blocks that take() can give: free or cached without a reference.
  int64_t num_available() const { return static_cast<int64_t>(free_.size()) + num_idle_cached_; }

  // Appends `count` blocks to `out`, each with one reference: free ones, then cached ones, of which
  // `evicted` is told first. All or nothing: kExhausted if fewer are available.
  Status take(int64_t count, std::vector<BlockId>& out, FunctionRef<void(BlockId)> evicted);
  // One more reference to a block that has one, or that is cached.
  void share(BlockId block);
  void release(BlockId block);

  // Whether the contents outlive the last reference. Only for a referenced block.
  void set_cached(BlockId block, bool cached);

  int32_t num_references(BlockId block) const { return at(block).references; }

  uint64_t generation(BlockId block) const { return read_generation(image_, memory_, block); }

  // The memory of a block in one cache group: [layer][token][token_bytes].
  std::span<std::byte> memory(size_t group, BlockId block) const {
    return image_.block(memory_, group, block);
  }

  // The descriptor to hand to processes of this host; -1: private memory.
  int shared_descriptor() const { return shared_.fd(); }

  // Touches all memory now, so that no step pays for it. kExhausted: the machine has no room.
  Status prefault();

  // For create() only.
  BlockPool(Private, PoolImage image, fabric::SharedMemory shared);

 private:
  static constexpr int32_t kNone = -1;

  struct Block {
    int32_t references = 0;
    bool cached = false;
    int32_t older = kNone;  // neighbours in the list of cached blocks without a reference
    int32_t newer = kNone;
  };

  Block& at(BlockId block);
  const Block& at(BlockId block) const;
  void end_generation(BlockId block);
  void append_idle(BlockId block);
  void remove_idle(BlockId block);

  PoolImage image_;
  fabric::SharedMemory shared_;
  AlignedBuffer private_;        // without shared memory
  std::span<std::byte> memory_;  // one of the two
  std::vector<Block> blocks_;
  std::vector<BlockId> free_;  // a stack: the block freed last is the warmest
  int32_t oldest_idle_ = kNone;
  int32_t newest_idle_ = kNone;
  int64_t num_idle_cached_ = 0;
};

}  // namespace wideep::kv
