#include "model/step.h"

#include "base/check.h"

namespace wideep::model {
namespace {

// The rows of a sequence that have this role.
RowRun rows_of(const SequenceRows& sequence, TokenRole role) {
  const int64_t prompt = sequence.num_prompt;
  if (role == TokenRole::kPrompt) return {sequence.first_row, prompt};
  if (role == TokenRole::kGenerated) return {sequence.first_row + prompt, sequence.count - prompt};
  return {sequence.first_row, sequence.count};
}

}  // namespace

Step::Step(const Compute& compute, const RopeConfig& rope, int64_t rope_dim, kv::CacheGroup group)
    : compute_(compute),
      rope_(rope, rope_dim, compute.rows_max),
      group_(std::move(group)),
      layer_bytes_(group_.layer_bytes()) {
  positions_.reserve(static_cast<size_t>(compute.rows_max));
  rows_.reserve(static_cast<size_t>(compute.rows_max));
  chunks_.reserve(static_cast<size_t>(compute.rows_max));
  runs_.reserve(static_cast<size_t>(compute.rows_max));
}

void Step::begin(const Batch& batch) {
  WD_CHECK(batch.num_rows() <= compute_.rows_max);
  profile_.begin();
  batch_ = &batch;
  positions_.clear();
  rows_.clear();
  for (const SequenceRows& sequence : batch.sequences) {
    WD_CHECK(sequence.first_row == static_cast<int64_t>(rows_.size()));
    WD_CHECK(sequence.block_data.size() == 1);
    WD_CHECK(sequence.num_prompt >= 0 && sequence.num_prompt <= sequence.count);
    const std::vector<std::byte*>& blocks = sequence.block_data.front();
    const int64_t end = sequence.position + sequence.count;
    WD_CHECK(static_cast<int64_t>(blocks.size()) * group_.block_tokens >= end);
    for (int64_t position = sequence.position; position < end; ++position) {
      std::byte* block = blocks[static_cast<size_t>(position / group_.block_tokens)];
      positions_.push_back(position);
      rows_.push_back(block + position % group_.block_tokens * group_.token_bytes);
    }
  }
  WD_CHECK(static_cast<int64_t>(rows_.size()) == batch.num_rows());
  if (!positions_.empty()) rope_.set(compute_.pool, positions_);
}

std::span<const math::AttentionChunk> Step::chunks(int64_t layer,
                                                   const AttentionRows& rows,
                                                   TokenRole role) {
  size_t num_blocks = 0;
  for (const SequenceRows& sequence : batch_->sequences)
    num_blocks += sequence.block_data.front().size();
  blocks_.resize(num_blocks);
  chunks_.clear();
  size_t first_block = 0;
  for (const SequenceRows& sequence : batch_->sequences) {
    const RowRun run = rows_of(sequence, role);
    if (run.count == 0) continue;
    const std::vector<std::byte*>& blocks = sequence.block_data.front();
    for (size_t i = 0; i < blocks.size(); ++i)
      blocks_[first_block + i] = blocks[i] + layer * layer_bytes_;
    chunks_.push_back({.q = rows.q + run.first * rows.q_width,
                       .out = rows.out + run.first * rows.out_width,
                       .position = sequence.position + run.first - sequence.first_row,
                       .count = run.count,
                       .blocks = std::span(blocks_).subspan(first_block, blocks.size())});
    first_block += blocks.size();
  }
  return chunks_;
}

std::span<const RowRun> Step::runs(TokenRole role) {
  runs_.clear();
  for (const SequenceRows& sequence : batch_->sequences) {
    const RowRun run = rows_of(sequence, role);
    if (run.count == 0) continue;
    if (!runs_.empty() && runs_.back().first + runs_.back().count == run.first) {
      runs_.back().count += run.count;
    } else {
      runs_.push_back(run);
    }
  }
  return runs_;
}

void Step::observe(std::string_view group,
                   int64_t layer,
                   std::string_view name,
                   MatrixView<const float> rows) const {
  if (observer_ == nullptr) return;
  std::string full(group);
  if (layer >= 0) full += fmt::format(".{}", layer);
  if (!name.empty()) full += fmt::format("{}{}", full.empty() ? "" : ".", name);
  observer_->observe(full, rows);
}

}  // namespace wideep::model
