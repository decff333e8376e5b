// Byte-level byte pair encoding: the "model" of tokenizer.json.
//
// A piece starts as its bytes; the adjacent pair with the lowest merge rank (leftmost on a tie) is
// merged until no pair is left. Short pieces scan for the minimum, long ones keep a heap: O(n log
// n) also for a million equal characters.
//
// The cache of pieces is the vocabulary itself: at load every token whose own bytes encode to just
// that token is marked, and a piece that equals a marked token is answered by one look-up. Most
// words of most texts are; nothing grows, nothing is locked.
#pragma once

#include "base/ids.h"
#include "base/json.h"
#include "base/result.h"
#include "tokenizer/vocabulary.h"

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace wideep::tokenizer {

struct BpeLimits {
  int32_t token_id_max = 4'000'000;
  int64_t merges_max = 8'000'000;
};

// Immutable after from_json; thread-safe.
class Bpe {
 public:
  // Reads {"type":"BPE","vocab":{...},"merges":[...],...}. Fails with the name of what it does not
  // support: another type, dropout, continuing_subword_prefix, end_of_word_suffix, byte_fallback.
  // `never` are ids that encode() must not give (control tokens): merges that lead to them are left
  // out.
  static Result<Bpe> from_json(const Json& json,
                               std::span<const TokenId> never,
                               const BpeLimits& limits = {});

  // Appends the tokens of one piece.
  void encode(std::string_view piece, std::vector<TokenId>& out) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    uint32_t rank;
    TokenId result;
  };

  // Hash table from a pair of ids to its merge; open addressing, at most half full.
  class MergeTable {
   public:
    void reserve(size_t num_merges);
    void set(TokenId left, TokenId right, Merge merge);
    // nullptr if the pair does not merge.
    const Merge* find(TokenId left, TokenId right) const;

   private:
    struct Entry {
      uint64_t key;
      Merge merge;
    };

    size_t slot_of(uint64_t key) const;

    std::vector<Entry> entries_;
  };

  Status read_vocabulary(const Json& json, const BpeLimits& limits);
  Status read_bytes();
  Status read_merges(const Json& json, const BpeLimits& limits);
  Status read_merge(const Json& json, uint32_t rank);
  void mark_direct(bool all);
  bool is_never(TokenId id) const;
  void merge_short(std::string_view piece, std::vector<TokenId>& out) const;
  void merge_long(std::string_view piece, std::vector<TokenId>& out) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  std::vector<TokenId> byte_tokens_;  // [256]
  std::vector<bool> never_;           // [vocabulary size]
  std::vector<bool> direct_;          // [vocabulary size]; a piece of these bytes is this token
};

}  // namespace wideep::tokenizer
