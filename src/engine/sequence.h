// A request on its way through the engine: its tokens so far, the KV blocks that hold them, and
// when things happened.
//
// A sequence is made from a Request: prompt, generated prefix, effective seed. That is the one
// door: a new request, one resumed on another rank and one that was preempted differ only in how
// many of their tokens are generated and how many are computed.
//
//   tokens   [ prompt ............ | generated ..... ]
//   KV       [ computed ....... | pending ]             pending >= 1 until it is finished
//
// A decoding sequence has one pending token, the one sampled last. Thread: engine thread only.
#pragma once

#include "api/block_hash.h"
#include "base/ids.h"
#include "engine/request.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace wideep::engine {

enum class SequenceState : uint8_t {
  kWaiting,       // not admitted, or preempted: holds no blocks
  kWaitingForKv,  // as kWaiting, for blocks that another sequence is filling right now
  kPulling,       // holds blocks for all its tokens; another rank's KV is being copied into them
  kRunning,       // holds blocks for all its tokens
};

// What the names of a sequence's blocks are made of besides its tokens.
struct BlockNaming {
  api::BlockHash root{};
  bool by_role = false;  // generated tokens are computed in another way than prompts
};

class Sequence {
 public:
  // `context_max`: tokens a sequence may have in all. The generated prefix is appended by
  // Generation.
  Sequence(SequenceId id, Request request, int64_t context_max, const BlockNaming& naming);

  SequenceId id() const { return id_; }

  const Request& request() const { return request_; }

  std::span<const TokenId> tokens() const { return tokens_; }

  std::span<const TokenId> generated() const {
    return tokens().subspan(request_.prompt_tokens.size());
  }

  int64_t num_tokens() const { return static_cast<int64_t>(tokens_.size()); }

  int64_t num_prompt() const { return static_cast<int64_t>(request_.prompt_tokens.size()); }

  int64_t num_generated() const { return num_tokens() - num_prompt(); }

  int64_t num_pending() const { return num_tokens() - num_computed; }

  // Tokens at which it ends for sure: max_tokens or the context, whichever comes first.
  int64_t num_tokens_max() const { return num_tokens_max_; }

  // Positions that are ever computed: the last token is only reported.
  int64_t num_computed_max() const { return num_tokens_max_ - 1; }

  void append(TokenId token) { tokens_.push_back(token); }

  // Leading tokens whose KV a ticket brings; 0 without one. The last token is always computed here.
  int64_t num_pullable() const {
    return can_pull ? std::min(request_.ticket->ticket.num_tokens, num_tokens() - 1) : 0;
  }

  // Names of all blocks that the tokens fill.
  std::span<const api::BlockHash> block_names(int64_t block_tokens);

  // Whether it is scheduled before another: by priority, then by arrival.
  bool precedes(const Sequence& other) const {
    return request_.priority != other.request_.priority
               ? request_.priority < other.request_.priority
               : id_ < other.id_;
  }

  // The chained hash of all prompt tokens: full blocks, then what is left.
  api::BlockHash prompt_hash(int64_t block_tokens);

  // Kept by the scheduler.
  SequenceState state = SequenceState::kWaiting;
  int64_t num_computed = 0;
  std::vector<BlockId> blocks;
  std::vector<TokenId> drafts;  // guesses of the tokens to come
  int32_t num_preemptions = 0;
  bool is_reserved = false;    // blocks up to its end are set aside: it is never preempted again
  int64_t cached_tokens = -1;  // found in the prefix cache when first admitted; -1: not yet
  int64_t pulled_tokens = 0;   // of the prompt, from another rank
  bool can_pull = false;       // its ticket has not been used yet

 private:
  SequenceId id_;
  Request request_;
  std::vector<TokenId> tokens_;
  int64_t num_tokens_max_;
  BlockNaming naming_;
  std::vector<api::BlockHash> names_;
};

}  // namespace wideep::engine
