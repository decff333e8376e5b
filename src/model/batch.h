// What one step computes: rows (tokens), grouped by the sequence they belong to.
#pragma once

#include "base/ids.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace wideep::model {

// Consecutive tokens of one sequence in a step: a prefill chunk, one decode token, or a token and
// its drafts.
struct SequenceRows {
  int64_t first_row = 0;  // rows [first_row, first_row + count) of the batch
  int64_t count = 0;
  int64_t position = 0;  // of the first row
  // Leading rows that are tokens of the prompt; the others were generated (drafts too). Matters
  // where the two are computed differently (AttentionForm::kByRole).
  int64_t num_prompt = 0;
  // Addresses of this sequence's KV blocks of each cache group, covering positions [0, position +
  // count): block_data[group][i] is the start of the i-th block (layer 0). Blocks before `position`
  // are filled.
  std::vector<std::vector<std::byte*>> block_data;
};

struct Batch {
  std::vector<TokenId> tokens;  // [num_rows]
  std::vector<SequenceRows> sequences;
  std::vector<int64_t> logit_rows;  // rows whose logits are wanted, ascending

  int64_t num_rows() const { return static_cast<int64_t>(tokens.size()); }

  void clear() {
    tokens.clear();
    sequences.clear();
    logit_rows.clear();
  }
};

}  // namespace wideep::model
