// The "added_tokens" of tokenizer.json: texts that become one token before BPE sees them.
//
// A control token is one that is marked special or that is delimited like markup (<...> or [...]):
// <think>, <|im_end|>, <｜User｜>, [INST]. Control tokens arise only from trusted text. Other added
// tokens (runs of spaces, single letters) are part of the language and arise from any text.
#pragma once

#include "base/function_ref.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/result.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::tokenizer {

struct AddedToken {
  TokenId id{};
  std::string content;
  bool single_word = false;  // matches only between non-word characters
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = true;    // is looked for after normalisation
  bool special = false;      // left out by decode when asked
  bool control = false;
};

struct AddedTokenLimits {
  size_t tokens_max = 300'000;  // as many as the largest vocabularies have
  size_t content_bytes_max = 512;
  int32_t token_id_max = 4'000'000;
};

Result<std::vector<AddedToken>> read_added_tokens(const Json* json, const AddedTokenLimits& limits);

// Which bytes of a text are trusted: runs that alternate in nothing but trust.
class TrustMap {
 public:
  void append(size_t bytes, bool trusted);
  // Whether all of [begin, end) is trusted.
  bool is_trusted(size_t begin, size_t end) const;
  // The first position after `begin` where trust changes, or SIZE_MAX.
  size_t run_end(size_t begin) const;
  bool trusted_at(size_t position) const;

 private:
  struct Run {
    size_t end;
    bool trusted;
  };

  size_t run_of(size_t position) const;

  std::vector<Run> runs_;
};

// The trust of a text that begins at byte `offset` of the mapped one.
struct TrustView {
  const TrustMap& map;
  size_t offset = 0;

  bool is_trusted(size_t begin, size_t end) const {
    return map.is_trusted(offset + begin, offset + end);
  }
};

// Finds a set of added tokens in a text: leftmost first, of those the longest. Time is linear in
// the text times AddedTokenLimits::content_bytes_max. Immutable after construction, thread-safe.
class AddedTokenMatcher {
 public:
  AddedTokenMatcher();

  // `pattern` is the token's content, normalised if it is to be found in normalised text.
  void add(std::string_view pattern, const AddedToken& token);

  bool empty() const { return nodes_.size() == 1; }

  // A part of the text: plain, or one token with the white space that it takes.
  struct Part {
    size_t begin;
    size_t end;
    std::optional<TokenId> token;
  };

  // Calls `part` in order with parts that cover `text` (well-formed UTF-8).
  void split(std::string_view text, TrustView trust, FunctionRef<void(const Part&)> part) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, int32_t>> edges;
    int32_t token = -1;  // index into tokens_
  };

  struct Match {
    const AddedToken* token;
    size_t end;
  };

  std::optional<Match> match_at(std::string_view text, size_t begin, TrustView trust) const;
  int32_t child(int32_t node, unsigned char byte) const;

  std::vector<Node> nodes_;
  std::vector<AddedToken> tokens_;
  std::array<bool, 256> starts_{};
};

}  // namespace wideep::tokenizer
