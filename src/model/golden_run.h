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
#include <span>
#include <vector>

namespace wideep::model {

// Tokens computed so far and the blocks that hold them. Copying shares the blocks.
struct GoldenSequence {
  std::vector<std::byte*> blocks;
  int64_t length = 0;
};

class GoldenRunner {
 public:
  GoldenRunner(Model& model, ep::AllToAll& all_to_all, int64_t block_tokens);

  struct Feed {
    GoldenSequence* sequence = nullptr;
    std::span<const TokenId> tokens;
  };

  // One forward over all feeds, in order; each sequence grows by its tokens. Logits of every row
  // [sum of tokens, vocab], valid until the next call.
  Result<MatrixView<const float>> forward(std::span<const Feed> feeds);
  // The draft layer on the rows of the last forward; `next` has one token for each.
  Result<MatrixView<const float>> draft(std::span<const TokenId> next);

 private:
  std::byte* new_block();

  Model& model_;
  ep::AllToAll& all_to_all_;
  const kv::KvLayout layout_;
  std::vector<AlignedBuffer> memory_;
  Batch batch_;
};

// Takes part in the forwards of another rank's GoldenRunner, with no rows, until it is done.
Status follow_golden(Model& model, ep::AllToAll& all_to_all);

}  // namespace wideep::model
