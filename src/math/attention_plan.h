// Which rows of an attention call are worked on together, and where their queries, cached tokens
// and results lie. Holds no results; attention.cc runs it, attention_kernels.h does the arithmetic.
// Thread: plan() by one thread; everything else is const.
#pragma once

#include "base/rounding.h"
#include "math/attention.h"
#include "math/attention_kernels.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace wideep::math {

// Rows (query x head) of one chunk and kv head that share packed values and a walk over the cache.
// Row r of a chunk and kv head is head r % heads_per_kv of query r / heads_per_kv.
struct AttentionGroup {
  int32_t chunk = 0;
  int32_t kv_head = 0;
  int64_t first_row = 0;
  int64_t num_rows = 0;
  int64_t first_tile = 0;     // counted over all groups of the call
  int64_t num_positions = 0;  // that its last row attends to

  int64_t num_tiles() const { return divide_up(num_rows, kRowTile); }

  int64_t num_partitions() const { return divide_up(num_positions, kAttentionPartition); }
};

class AttentionPlan {
 public:
  AttentionPlan(const AttentionShape& shape, int64_t block_tokens, int64_t queries_max);

  int64_t queries_max() const { return queries_max_; }

  int64_t tiles_max() const { return tiles_max_; }

  // Takes the chunks of a call (checked against the limits); they must stay alive.
  void start(std::span<const AttentionChunk> chunks);

  std::span<const AttentionChunk> chunks() const { return chunks_; }

  int64_t num_tiles() const { return num_tiles_; }

  // Keeps the queries of this chunk in groups of their own (see Attention::Engine). May be called
  // for different chunks at once.
  void keep_queries_apart(int64_t chunk) { apart_[static_cast<size_t>(chunk)] = 1; }

  // Cuts all rows into groups of at most `tiles_per_group` row tiles.
  void cut(int64_t tiles_per_group);

  std::span<const AttentionGroup> groups() const { return groups_; }

  // Total and largest of (row tiles x positions) over the groups.
  int64_t total_cost() const;
  int64_t largest_cost() const;

  // Row tile `tile` of the group, as one partition sees it; results not set.
  RowTile tile(const AttentionGroup& group, int64_t tile, int64_t partition) const;
  const float* query(const AttentionGroup& group, int64_t row) const;
  float* out(const AttentionGroup& group, int64_t row) const;
  // `values` not set.
  CachedPartition cached(const AttentionGroup& group, int64_t partition) const;

 private:
  void add_groups(AttentionGroup rows, int64_t tiles_per_group);
  int64_t row_index(const AttentionGroup& group, int64_t row) const;

  const AttentionShape shape_;
  const int64_t block_tokens_;
  const int64_t queries_max_;
  const int64_t tiles_max_;
  std::span<const AttentionChunk> chunks_;
  int64_t num_tiles_ = 0;
  std::vector<uint8_t> apart_;  // per chunk
  std::vector<AttentionGroup> groups_;
};

}  // namespace wideep::math
