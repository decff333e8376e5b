// The inner steps of attention, one table per instruction-set level. attention.cc holds the order
// of things: which rows, which partitions, which threads, and the merging.
//
// Rows are (query, head) pairs that share a kv head, sixteen to a row tile: they are the lanes of
// the score product, so that keys are read from the cache as they lie there (sixteen positions by a
// few values at a time), softmax runs down the lanes without horizontal sums, and a tile of cached
// tokens serves all its rows. Scores of one partition are [512][16] in L1.
#pragma once

#include "math/attention.h"
#include "math/isa.h"

#include <array>
#include <cstdint>
#include <span>

namespace wideep::math {

inline constexpr int64_t kRowTile = 16;
inline constexpr int64_t kTilesPerPartition = kAttentionPartition / kAttentionTile;

// The cached tokens of one partition as one kv head sees them.
struct CachedPartition {
  // tiles[i] = first byte of the cached row at the partition's position 16 i; the next fifteen rows
  // follow at `token_bytes`. Rows at positions >= count may hold anything.
  std::array<const std::byte*, kTilesPerPartition> tiles;
  int64_t count = 0;        // valid positions, 1 … 512
  int64_t token_bytes = 0;  // stride between rows
  int64_t key_bytes = 0;    // where the head's key starts in a row
  int64_t value_bytes = 0;  // where the head's value starts in a row
  // What the thread probably takes next (null or empty: unknown); its memory may be asked for.
  const CachedPartition* next = nullptr;

  const std::byte* row(int64_t position) const {
    return tiles[static_cast<size_t>(position / kAttentionTile)] +
           position % kAttentionTile * token_bytes;
  }
};

// Up to sixteen rows and their results over one partition (or over all merged so far).
struct RowTile {
  const std::byte* queries = nullptr;  // what pack_queries wrote
  int64_t num_rows = 0;
  std::array<int32_t, kRowTile> visible{};  // row r attends to positions [0, visible[r])
  // Results, in base 2: p = exp2(s * scale * log2(e) - max).
  float* max = nullptr;                // [16]; -inf where nothing is visible
  float* sum = nullptr;                // [16]
  std::array<float*, kRowTile> out{};  // num_rows rows of value_width: sum of p * v
};

// Where a partition stands among those that go into the same results.
struct PartitionTurn {
  bool first = true;  // results are overwritten; otherwise merged into
  bool last = false;  // results are finished: divided by their sums
};

struct AttentionKernels {
  // Bytes of packed queries per row tile, and of working memory.
  int64_t (*query_bytes)(const AttentionShape& shape);
  int64_t (*work_bytes)(const AttentionShape& shape);
  int64_t tiles_max;  // row tiles that one attend() takes

  // `rows`: num_rows <= 16 pointers to key_width floats.
  void (*pack_queries)(const AttentionShape& shape,
                       std::span<const float* const> rows,
                       std::byte* out);
  // True if all values of the positions [begin, end) are finite.
  bool (*values_are_finite)(const AttentionShape& shape,
                            const CachedPartition& cached,
                            int64_t begin,
                            int64_t end);
  // Takes one partition into max, sum and out of every tile. Values of positions that a row does
  // not see may be multiplied by its zero probabilities: they must be finite (see
  // values_are_finite) or lie beyond `count`.
  void (*attend)(const AttentionShape& shape,
                 const CachedPartition& cached,
                 std::span<RowTile> tiles,
                 PartitionTurn turn,
                 std::byte* work);
  // The same from the results of a partition that were computed apart: the same bits. Rows of
  // `from` that saw nothing change nothing.
  void (*merge)(const RowTile& from, int64_t value_width, PartitionTurn turn, RowTile& into);
};

// A call must have at most `queries_max` queries, and blocks for every position that one attends to
// (checked).
void check_chunks(std::span<const AttentionChunk> chunks,
                  int64_t block_tokens,
                  int64_t queries_max);

// The table of a level for these shapes: products of bf16 pairs where the widths are whole pairs or
// tiles, f32 arithmetic otherwise.
const AttentionKernels& attention_kernels(Isa isa, const AttentionShape& shape);

}  // namespace wideep::math
