#include "model/golden_run.h"

#include "base/check.h"

#include <algorithm>

namespace wideep::model {

GoldenRunner::GoldenRunner(Model& model, ep::AllToAll& all_to_all, int64_t block_tokens)
    : model_(model), all_to_all_(all_to_all), layout_(model.kv_layout(block_tokens)) {}

std::byte* GoldenRunner::new_block() {
  memory_.emplace_back(static_cast<size_t>(layout_.groups.front().block_bytes()));
  return memory_.back().data();
}

Status GoldenRunner::begin_step(Then then) {
  WD_TRY(all_to_all_.begin_step({.num_tokens = all_to_all_.tokens_max(),
                                 .has_work = true,
                                 .draft_depth = then == Then::kDraft ? 1 : 0}));
  return {};
}

Result<MatrixView<const float>> GoldenRunner::forward(std::span<const Feed> feeds, Then then) {
  const int64_t block_tokens = layout_.groups.front().block_tokens;
  batch_.clear();
  for (const Feed& feed : feeds) {
    GoldenSequence& sequence = *feed.sequence;
    const auto count = static_cast<int64_t>(feed.tokens.size());
    const int64_t first_row = batch_.num_rows();
    while (static_cast<int64_t>(sequence.blocks.size()) * block_tokens < sequence.length + count)
      sequence.blocks.push_back(new_block());
    batch_.tokens.insert(batch_.tokens.end(), feed.tokens.begin(), feed.tokens.end());
    batch_.sequences.push_back(
        {.first_row = first_row,
         .count = count,
         .position = sequence.length,
         .num_prompt = std::clamp<int64_t>(sequence.num_prompt - sequence.length, 0, count),
         .block_data = {sequence.blocks}});
    for (int64_t i = 0; i < count; ++i)
      batch_.logit_rows.push_back(first_row + i);
  }
  WD_TRY(begin_step(then));
  WD_ASSIGN_OR_RETURN(const MatrixView<const float> logits, model_.forward(batch_, all_to_all_));
  for (const Feed& feed : feeds)
    feed.sequence->length += static_cast<int64_t>(feed.tokens.size());
  return logits;
}

Result<MatrixView<const float>> GoldenRunner::draft(std::span<const TokenId> next) {
  WD_CHECK(static_cast<int64_t>(next.size()) == batch_.num_rows());
  std::ranges::copy(next, batch_.tokens.begin());
  WD_TRY(begin_step(Then::kForward));
  return model_.draft(batch_, all_to_all_);
}

Status follow_golden(Model& model, ep::AllToAll& all_to_all) {
  const Batch empty;
  while (true) {
    WD_ASSIGN_OR_RETURN(const ep::StepProgram program, all_to_all.begin_step({}));
    if (!program.anyone_has_work) return {};
    if (program.draft_depth > 0) {
      WD_TRY(model.draft(empty, all_to_all));
    } else {
      WD_TRY(model.forward(empty, all_to_all));
    }
  }
}

}  // namespace wideep::model
