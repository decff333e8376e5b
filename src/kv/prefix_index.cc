#include "kv/prefix_index.h"

#include "base/check.h"

namespace wideep::kv {

PrefixEntry PrefixIndex::find(const api::BlockHash& name) const {
  const auto it = entries_.find(name);
  return it == entries_.end() ? PrefixEntry{} : it->second;
}

bool PrefixIndex::insert(const api::BlockHash& name, const PrefixEntry& entry) {
  WD_CHECK(entry.presence != Presence::kAbsent);
  WD_CHECK(!has_name(entry.block));
  if (!entries_.emplace(name, entry).second) return false;
  name_of(entry.block) = name;
  return true;
}

void PrefixIndex::set_present(BlockId block) {
  WD_CHECK(has_name(block));
  entries_.at(*name_of(block)).presence = Presence::kPresent;
}

void PrefixIndex::erase(BlockId block) {
  std::optional<api::BlockHash>& name = name_of(block);
  if (!name) return;
  entries_.erase(*name);
  name.reset();
}

Presence PrefixIndex::presence_of(BlockId block) const {
  const std::optional<api::BlockHash>& name = name_of(block);
  return name ? entries_.at(*name).presence : Presence::kAbsent;
}

std::optional<api::BlockHash>& PrefixIndex::name_of(BlockId block) {
  WD_CHECK(index(block) >= 0 && subscript(block) < names_.size());
  return names_[subscript(block)];
}

const std::optional<api::BlockHash>& PrefixIndex::name_of(BlockId block) const {
  return const_cast<PrefixIndex*>(this)->name_of(block);
}

}  // namespace wideep::kv
