// The KV cache of a rank: blocks (BlockPool) and the names of what they hold (PrefixIndex), kept in
// step.
//
// A user of blocks (a sequence; later a lease or a pull) holds a block table: a vector of ids,
// block i for tokens [i * block_tokens, …), one reference each. A table starts with shared blocks
// that are full and present and are never written again, and goes on with blocks of its own.
//
//   match(names)            which leading blocks are there already
//   share(match, table)     use them
//   take(count, table)      blocks of its own behind them
//   announce(block, name)   "I am filling this": others may wait for it
//   publish(block, name)    it is full: others may share it
//   give_back(table)        one reference less on each; published blocks stay cached until evicted
//
// Thread: the engine thread only.
#pragma once

#include "base/rounding.h"
#include "kv/block_pool.h"
#include "kv/prefix_index.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace wideep::kv {

enum class PrefixCaching : bool { kOff, kOn };

// The leading part of a chain of names that is present.
struct PrefixMatch {
  std::vector<BlockId> blocks;
  int64_t num_idle = 0;  // of them without a reference: sharing them makes them unavailable
  std::optional<SequenceId> loader;  // who is filling the block behind them
};

class KvCache {
 public:
  KvCache(std::unique_ptr<BlockPool> pool, PrefixCaching caching);

  int64_t block_tokens() const { return pool_->block_tokens(); }

  int64_t num_blocks() const { return pool_->num_blocks(); }

  int64_t num_available() const { return pool_->num_available(); }

  int64_t blocks_for(int64_t num_tokens) const { return divide_up(num_tokens, block_tokens()); }

  PrefixMatch match(std::span<const api::BlockHash> names) const;
  void share(const PrefixMatch& match, std::vector<BlockId>& table);
  // All or nothing: kExhausted if fewer are available.
  Status take(int64_t count, std::vector<BlockId>& table);

  // Nothing happens if another block has that name, or without prefix caching.
  void announce(BlockId block, const api::BlockHash& name, SequenceId loader);
  void publish(BlockId block, const api::BlockHash& name);

  // Last block first, so that the start of a chain is evicted last. What was announced and not
  // published is withdrawn. Leaves the table empty.
  void give_back(std::vector<BlockId>& table);

  BlockPool& pool() { return *pool_; }

  const BlockPool& pool() const { return *pool_; }

 private:
  std::unique_ptr<BlockPool> pool_;
  PrefixCaching caching_;
  PrefixIndex index_;
};

}  // namespace wideep::kv
