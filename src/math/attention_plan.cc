#include "math/attention_plan.h"

#include "base/check.h"
#include "base/rounding.h"

#include <algorithm>

namespace wideep::math {
namespace {

int64_t cost(const AttentionGroup& group) {
  return group.num_tiles() * group.num_positions;
}

}  // namespace

AttentionPlan::AttentionPlan(const AttentionShape& shape, int64_t block_tokens, int64_t queries_max)
    : shape_(shape),
      block_tokens_(block_tokens),
      queries_max_(queries_max),
      tiles_max_(queries_max * shape.num_kv_heads * divide_up(shape.heads_per_kv, kRowTile)) {
  WD_CHECK(block_tokens > 0 && block_tokens % kAttentionTile == 0);
  WD_CHECK(block_tokens <= kAttentionPartition);
  WD_CHECK(shape.num_kv_heads > 0 && shape.heads_per_kv > 0);
  WD_CHECK(shape.key_width > 0 && shape.value_width > 0);
  WD_CHECK(shape.scale > 0);
  WD_CHECK(shape.num_kv_heads * shape.key_width <= shape.token_values);
  WD_CHECK(shape.value_offset + shape.num_kv_heads * shape.value_width <= shape.token_values);
  groups_.reserve(static_cast<size_t>(tiles_max_));
  apart_.resize(static_cast<size_t>(queries_max));
}

void AttentionPlan::start(std::span<const AttentionChunk> chunks) {
  check_chunks(chunks, block_tokens_, queries_max_);
  chunks_ = chunks;
  num_tiles_ = 0;
  for (const AttentionChunk& chunk : chunks) {
    num_tiles_ += shape_.num_kv_heads * divide_up(chunk.count * shape_.heads_per_kv, kRowTile);
  }
  std::fill(apart_.begin(), apart_.end(), 0);
}

void AttentionPlan::cut(int64_t tiles_per_group) {
  groups_.clear();
  for (int32_t c = 0; c < std::ssize(chunks_); ++c) {
    const AttentionChunk& chunk = chunks_[static_cast<size_t>(c)];
    for (int32_t kv_head = 0; kv_head < shape_.num_kv_heads; ++kv_head) {
      AttentionGroup rows{
          .chunk = c, .kv_head = kv_head, .num_rows = chunk.count * shape_.heads_per_kv};
      if (apart_[static_cast<size_t>(c)] == 0) {
        add_groups(rows, tiles_per_group);
        continue;
      }
      rows.num_rows = shape_.heads_per_kv;
      for (int64_t query = 0; query < chunk.count; ++query) {
        rows.first_row = query * shape_.heads_per_kv;
        add_groups(rows, tiles_per_group);
      }
    }
  }
}

void AttentionPlan::add_groups(AttentionGroup rows, int64_t tiles_per_group) {
  const int64_t position = chunks_[static_cast<size_t>(rows.chunk)].position;
  const int64_t end = rows.first_row + rows.num_rows;
  for (int64_t row = rows.first_row; row < end; row += tiles_per_group * kRowTile) {
    AttentionGroup group = rows;
    group.first_row = row;
    group.num_rows = std::min(end - row, tiles_per_group * kRowTile);
    group.num_positions = position + (row + group.num_rows - 1) / shape_.heads_per_kv + 1;
    group.first_tile = groups_.empty() ? 0 : groups_.back().first_tile + groups_.back().num_tiles();
    groups_.push_back(group);
  }
}

int64_t AttentionPlan::total_cost() const {
  int64_t total = 0;
  for (const AttentionGroup& group : groups_)
    total += cost(group);
  return total;
}

int64_t AttentionPlan::largest_cost() const {
  int64_t largest = 0;
  for (const AttentionGroup& group : groups_)
    largest = std::max(largest, cost(group));
  return largest;
}

RowTile AttentionPlan::tile(const AttentionGroup& group, int64_t tile, int64_t partition) const {
  const AttentionChunk& chunk = chunks_[static_cast<size_t>(group.chunk)];
  RowTile rows;
  rows.num_rows = std::min(kRowTile, group.num_rows - tile * kRowTile);
  for (int64_t r = 0; r < rows.num_rows; ++r) {
    const int64_t query = (group.first_row + tile * kRowTile + r) / shape_.heads_per_kv;
    const int64_t seen = chunk.position + query + 1 - partition * kAttentionPartition;
    rows.visible[static_cast<size_t>(r)] =
        static_cast<int32_t>(std::clamp(seen, int64_t{0}, kAttentionPartition));
  }
  return rows;
}

int64_t AttentionPlan::row_index(const AttentionGroup& group, int64_t row) const {
  const int64_t query = (group.first_row + row) / shape_.heads_per_kv;
  const int64_t head = (group.first_row + row) % shape_.heads_per_kv;
  return query * shape_.num_heads() + group.kv_head * shape_.heads_per_kv + head;
}

const float* AttentionPlan::query(const AttentionGroup& group, int64_t row) const {
  return chunks_[static_cast<size_t>(group.chunk)].q + row_index(group, row) * shape_.key_width;
}

float* AttentionPlan::out(const AttentionGroup& group, int64_t row) const {
  return chunks_[static_cast<size_t>(group.chunk)].out + row_index(group, row) * shape_.value_width;
}

CachedPartition AttentionPlan::cached(const AttentionGroup& group, int64_t partition) const {
  const AttentionChunk& chunk = chunks_[static_cast<size_t>(group.chunk)];
  const int64_t value_bytes = cache_value_bytes(shape_.format);
  CachedPartition view{};
  view.token_bytes = shape_.token_values * value_bytes;
  view.key_bytes = group.kv_head * shape_.key_width * value_bytes;
  view.value_bytes = (shape_.value_offset + group.kv_head * shape_.value_width) * value_bytes;
  const int64_t start = partition * kAttentionPartition;
  view.count = std::min(kAttentionPartition, group.num_positions - start);
  for (int64_t t = 0; t * kAttentionTile < view.count; ++t) {
    const int64_t position = start + t * kAttentionTile;
    const std::byte* block = chunk.blocks[static_cast<size_t>(position / block_tokens_)];
    view.tiles[static_cast<size_t>(t)] = block + position % block_tokens_ * view.token_bytes;
  }
  return view;
}

}  // namespace wideep::math
