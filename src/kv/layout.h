// What a KV block is made of.
//
// A block holds `block_tokens` consecutive tokens of one sequence, for every layer of its cache
// group:
//   [layer of the group][token][token_bytes]     a contiguous range: one copy, one checksum
// MLA is one group of 576 values per token and layer; GQA one group of 2 x kv_heads x head_dim; the
// layer of multi-token prediction belongs to the group of its kind as the last layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace wideep::kv {

// Which positions of a sequence a group keeps.
enum class Retention : uint8_t {
  kAll,
  kWindow,  // the last `window_tokens` only
  kState,   // one fixed-size state per sequence
};

struct CacheGroup {
  std::string name;  // "mla", "gqa"
  int64_t num_layers = 0;
  int64_t token_bytes = 0;  // per layer
  int64_t block_tokens = 0;
  Retention retention = Retention::kAll;
  int64_t window_tokens = 0;

  int64_t layer_bytes() const { return token_bytes * block_tokens; }

  int64_t block_bytes() const { return layer_bytes() * num_layers; }

  bool operator==(const CacheGroup&) const = default;
};

struct KvLayout {
  std::vector<CacheGroup> groups;

  int64_t token_bytes() const {  // of all groups and layers
    int64_t sum = 0;
    for (const CacheGroup& group : groups)
      sum += group.token_bytes * group.num_layers;
    return sum;
  }

  // "mla: 61 layers x 1152 bytes, 64 tokens a block": compared at every hand-over of KV.
  std::string describe() const;
  bool operator==(const KvLayout&) const = default;
};

}  // namespace wideep::kv
