// Ids are types, so that a rank cannot be passed where an expert is meant.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace wideep {

enum class RankId : int32_t {};    // a process of a group
enum class NodeId : int32_t {};    // a host
enum class ExpertId : int32_t {};  // a logical expert of a layer
enum class SlotId : int32_t {};    // an expert's physical place on a rank
enum class BlockId : int32_t {};   // a KV block
enum class LayerId : int32_t {};   // a decoder layer
enum class TokenId : int32_t {};   // an entry of the vocabulary
enum class SequenceId : int64_t {};

// The number behind an id, for indexing.
template <typename Id>
  requires std::is_enum_v<Id>
constexpr auto index(Id id) {
  return static_cast<std::underlying_type_t<Id>>(id);
}

// The same for containers: peers[subscript(rank)].
template <typename Id>
  requires std::is_enum_v<Id>
constexpr size_t subscript(Id id) {
  return static_cast<size_t>(index(id));
}

}  // namespace wideep
