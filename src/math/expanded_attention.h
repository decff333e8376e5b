// Attention of query rows over cached latents (MLA) in the expanded form: every head's keys and
// values are computed from the latents,
//
//   key[h] = [W_UK[h] c, k_pe]    value[h] = W_UV[h] c    of a cached row [c, k_pe]
//
// and attended to as they are. Per (query, key) that is 192 + 128 products where the absorbed form
// (attention.h) takes 576 + 512, but each cached row costs 512 x 256 first: it pays where hundreds
// of queries share their keys.
//
// A thread expands one head and one partition of 512 positions at a time, into memory of its own,
// and lets all queries of a chunk attend to that before it goes on. What is expanded is rounded to
// the format of the cache. The result of a query depends on the query, the cached rows at positions
// <= its own, the weights and the ISA level alone, as in attention.h.
#pragma once

#include "base/thread_pool.h"
#include "math/attention.h"
#include "math/gemm.h"
#include "math/kernels.h"

#include <cstdint>
#include <memory>
#include <span>

namespace wideep::math {

struct ExpandedShape {
  CacheFormat format = CacheFormat::kBf16;
  int64_t num_heads = 0;
  int64_t latent_width = 0;  // values of c, at the start of a cached row
  int64_t rope_width = 0;    // values of k_pe, behind it
  int64_t nope_width = 0;    // values of W_UK[h] c
  int64_t value_width = 0;
  int64_t token_values = 0;  // values of one cached row: the row stride
  float scale = 1;           // multiplies q . k

  int64_t key_width() const { return nope_width + rope_width; }
};

// Matrices per head. They must multiply rows of the cache's format.
struct ExpansionWeights {
  std::span<const PackedMatrix> keys;    // W_UK: n = nope_width, k = latent_width
  std::span<const PackedMatrix> values;  // W_UV: n = value_width, k = latent_width
};

// Thread: forward() by one thread at a time.
class ExpandedAttention {
 public:
  // Scratch for `queries_max` queries of one call: about 1 MiB a thread for 192 + 128 bf16 values a
  // head, whatever the number of heads and positions. Nothing is allocated later.
  ExpandedAttention(ThreadPool& pool,
                    const Kernels& kernels,
                    const ExpandedShape& shape,
                    int64_t block_tokens,
                    int64_t queries_max);
  ~ExpandedAttention();

  // A chunk's q is [count][num_heads][key_width], nope first, and out [count][num_heads]
  // [value_width]. Blocks must cover every position that a query attends to; what lies beyond may
  // hold anything.
  void forward(const ExpansionWeights& weights, std::span<const AttentionChunk> chunks);

 private:
  class Engine;
  std::unique_ptr<Engine> engine_;
};

// The slow twin: everything in double precision, nothing rounded on the way.
void reference_expanded_attention(const ExpandedShape& shape,
                                  const ExpansionWeights& weights,
                                  int64_t block_tokens,
                                  std::span<const AttentionChunk> chunks);

}  // namespace wideep::math
