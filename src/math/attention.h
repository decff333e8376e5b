// Attention of query rows over a paged cache, for MLA in its absorbed form and for GQA.
//
// A cached token is one row of `token_bytes`; keys and values are parts of it. MLA (absorbed): one
// kv head, key = [0, 576), value = [0, 512) of the same 576 values, every query head attends to it.
// GQA: kv head g has its key at g * width and its value behind all keys.
//
// Softmax is taken in f32 over fixed partitions of 512 absolute positions [0, 512), [512, 1024), …
// Each partition gives (max, sum, weighted values); partitions are merged in ascending order. The
// result of a query depends on the query, the cached rows at positions <= its own and the ISA level
// alone: not on the block size, the other queries, the chunk, or the threads. In kBf16 caches
// queries and probabilities are rounded to bf16 before the products, sums stay f32.
#pragma once

#include "base/thread_pool.h"
#include "math/kernels.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace wideep::math {

inline constexpr int64_t kAttentionPartition = 512;
// KV blocks hold a multiple of this many tokens, and at most a partition.
inline constexpr int64_t kAttentionTile = 16;

enum class CacheFormat { kF32, kBf16 };

inline int64_t cache_value_bytes(CacheFormat format) {
  return format == CacheFormat::kF32 ? 4 : 2;
}

struct AttentionShape {
  CacheFormat format = CacheFormat::kBf16;
  int64_t num_kv_heads = 1;
  int64_t heads_per_kv = 1;  // query heads that share a kv head
  int64_t key_width = 0;     // values
  int64_t value_width = 0;
  int64_t token_values = 0;  // values of one cached row: the row stride
  int64_t value_offset =
      0;            // of kv head 0, in values; kv head g: + g * value_width. Keys: g * key_width
  float scale = 1;  // multiplies q . k

  int64_t num_heads() const { return num_kv_heads * heads_per_kv; }
};

// Consecutive queries of one sequence.
struct AttentionChunk {
  const float* q = nullptr;  // [count][num_heads][key_width], rotated (and absorbed)
  float* out = nullptr;      // [count][num_heads][value_width]
  int64_t position = 0;      // of the first query; query i attends to [0, position + i]
  int64_t count = 0;
  std::span<const std::byte* const> blocks;  // block b holds positions [b * block_tokens, …)
};

// Thread: forward() by one thread at a time.
class Attention {
 public:
  // Scratch for `queries_max` queries of one call; nothing is allocated later.
  Attention(ThreadPool& pool,
            const Kernels& kernels,
            const AttentionShape& shape,
            int64_t block_tokens,
            int64_t queries_max);
  ~Attention();
  // Blocks must cover every position that a query attends to; what lies beyond may hold anything.
  void forward(std::span<const AttentionChunk> chunks);

 private:
  class Engine;
  std::unique_ptr<Engine> engine_;
};

// The slow twin: plain softmax in double precision.
void reference_attention(const AttentionShape& shape,
                         int64_t block_tokens,
                         std::span<const AttentionChunk> chunks);

}  // namespace wideep::math
