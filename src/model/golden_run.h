// Drives a Model over plain sequences without an engine: what `wideep golden` and the tests of the
// forward pass use. Blocks come from an allocator that never gives back.
//
// Thread: one at a time.
#pragma once

#include "base/matrix.h"
#include "base/memory.h"
#include "base/result.h"
#include "ep/all_to_all.h"
#include "model/model.h"

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace wideep::model {

// Tokens computed so far and the blocks that hold them. Copying shares the blocks.
struct GoldenSequence {
  std::vector<std::byte*> blocks;
  int64_t length = 0;
  int64_t num_prompt = std::numeric_limits<int64_t>::max();  // tokens behind them are generated
};

class GoldenRunner {
 public:
  GoldenRunner(Model& model, ep::AllToAll& all_to_all, int64_t block_tokens);

  struct Feed {
    GoldenSequence* sequence = nullptr;
    std::span<const TokenId> tokens;
  };

  // What the next call will be: the ranks of a group agree on a step while the one before it runs.
  enum class Then : uint8_t { kForward, kDraft };

  // One forward over all feeds, in order; each sequence grows by its tokens. Logits of every row
  // [sum of tokens, vocab], valid until the next call.
  Result<MatrixView<const float>> forward(std::span<const Feed> feeds, Then then = Then::kForward);
  // The draft layer on the rows of the last forward; `next` has one token for each. A step of its
  // own.
  Result<MatrixView<const float>> draft(std::span<const TokenId> next);

 private:
  std::byte* new_block();
  Status begin_step(Then then);

  Model& model_;
  ep::AllToAll& all_to_all_;
  const kv::KvLayout layout_;
  std::vector<AlignedBuffer> memory_;
  Batch batch_;
};

// Takes part in the steps of other ranks' GoldenRunners, with no rows, until no rank has any left.
// Whoever drove a runner in a group calls it at the end.
Status follow_golden(Model& model, ep::AllToAll& all_to_all);

}  // namespace wideep::model
