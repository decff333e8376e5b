// From the name of a block's contents (api/block_hash.h) to the block that holds them.
//
// present: the contents are there. loading: a sequence is computing (or, later, pulling) them right
// now; whoever wants them may wait for that sequence instead of doing the work again. The index
// holds no references: it is told when a block's contents go.
//
// Thread: the engine thread only.
#pragma once

#include "api/block_hash.h"
#include "base/ids.h"

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

namespace wideep::kv {

enum class Presence : uint8_t { kAbsent, kLoading, kPresent };

struct PrefixEntry {
  Presence presence = Presence::kAbsent;
  BlockId block{};
  SequenceId loader{};  // with kLoading
};

class PrefixIndex {
 public:
  explicit PrefixIndex(int64_t num_blocks) : names_(static_cast<size_t>(num_blocks)) {}

  PrefixEntry find(const api::BlockHash& name) const;

  // Names the contents of a block that has no name yet. False, and nothing changes, if another
  // block has this name already.
  bool insert(const api::BlockHash& name, const PrefixEntry& entry);
  // The contents of a loading block are there.
  void set_present(BlockId block);
  // The contents of a block are gone. Nothing happens if it has no name.
  void erase(BlockId block);

  bool has_name(BlockId block) const { return name_of(block).has_value(); }

  // kAbsent for a block without a name.
  Presence presence_of(BlockId block) const;

  int64_t size() const { return static_cast<int64_t>(entries_.size()); }

 private:
  std::optional<api::BlockHash>& name_of(BlockId block);
  const std::optional<api::BlockHash>& name_of(BlockId block) const;

  std::unordered_map<api::BlockHash, PrefixEntry, api::BlockHasher> entries_;
  std::vector<std::optional<api::BlockHash>> names_;  // [block]
};

}  // namespace wideep::kv
