// Text to tokens and back, as the model's tokenizer.json says: byte-level BPE.
//
// Trust. A text comes in segments (text_segment.h). The segments are joined and encoded as one
// text, exactly as the original does with the whole string, but for one rule: a control token
// (added_tokens.h) is recognised only where all its bytes are template text. What looks like one in
// content, or across the edge of content, becomes ordinary tokens; and the BPE model never yields
// one (vocabulary entries and merges that would are left out). NFC is applied to each run of equal
// trust on its own, so that offsets survive; only a content that begins with a combining mark could
// tell the difference.
//
// Ill-formed UTF-8 is read as U+FFFD, one for each maximal ill-formed part, within its segment.
#pragma once

#include "base/ids.h"
#include "base/json.h"
#include "base/result.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/post_processor.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/text_segment.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::tokenizer {

struct TokenizerLimits {
  int64_t file_bytes_max = 256 << 20;
  int64_t input_bytes_max = 16 << 20;  // of one text, all its segments together
  BpeLimits bpe;
  AddedTokenLimits added_tokens;
};

struct EncodeOptions {
  bool add_special_tokens = false;  // BOS and the like, as post_processor or add_bos_token say
  bool parse_special = false;       // the text is trusted: control tokens in it are meant
};

struct DecodeOptions {
  bool skip_special = false;
};

// Immutable after load; any number of threads may call any method.
class Tokenizer {
  struct Private {};

 public:
  // Reads tokenizer.json and, if there, tokenizer_config.json. Fails with the name of any part of
  // them that it does not support.
  static Result<std::unique_ptr<Tokenizer>> load(const std::string& model_dir,
                                                 const TokenizerLimits& limits = {});
  // From the two parsed files; `config` may be null.
  static Result<std::unique_ptr<Tokenizer>> from_json(const Json& tokenizer,
                                                      const Json& config,
                                                      const TokenizerLimits& limits = {});

  // kExhausted if the text is longer than input_bytes_max.
  Result<std::vector<TokenId>> encode(std::string_view text,
                                      const EncodeOptions& options = {}) const;
  // A rendered chat prompt. No tokens are added: templates write their own BOS.
  Result<std::vector<TokenId>> encode_chat(std::span<const TextSegment> segments) const;

  // The raw bytes that a token stands for: any bytes, perhaps part of a character. Added tokens
  // give their content, ids without a token nothing.
  std::string_view token_bytes(TokenId id) const;
  bool is_special(TokenId id) const;
  // Whether text from a request can never become this token (added_tokens.h).
  bool is_control(TokenId id) const;

  // Largest id + 1. The model may have more rows than that.
  int32_t vocab_size() const { return vocab_size_; }

  // The bytes of all tokens as UTF-8, ill-formed parts as U+FFFD.
  std::string decode(std::span<const TokenId> ids, const DecodeOptions& options = {}) const;

  // The token of that content (added tokens) or of those raw bytes.
  std::optional<TokenId> token_to_id(std::string_view text) const;

  std::optional<TokenId> bos_id() const { return bos_id_; }

  std::optional<TokenId> eos_id() const { return eos_id_; }

  // For from_json only.
  Tokenizer(
      Private, Bpe bpe, PreTokenizer pre_tokenizer, Normalizer normalizer, int64_t input_bytes_max);

 private:
  Status add_tokens(std::vector<AddedToken> tokens);
  Status read_config(const Json& config, PostProcessor post_processor);
  Result<std::vector<TokenId>> encode_trusted(std::string_view text, const TrustMap& trust) const;
  Status encode_gap(std::string_view gap, TrustView trust, std::vector<TokenId>& out) const;
  Status encode_plain(std::string_view text, std::vector<TokenId>& out) const;
  const AddedToken* added_token(TokenId id) const;

  Bpe bpe_;
  PreTokenizer pre_tokenizer_;
  Normalizer normalizer_;
  int64_t input_bytes_max_;
  AddedTokenMatcher raw_matcher_;         // on the text as it came
  AddedTokenMatcher normalized_matcher_;  // on the normalised text
  std::vector<AddedToken> added_tokens_;
  std::vector<int32_t> added_index_;  // [vocab_size]; into added_tokens_, or -1
  int32_t vocab_size_ = 0;
  PostProcessor post_processor_;
  std::optional<TokenId> bos_id_;
  std::optional<TokenId> eos_id_;
};

// The text of a config entry such as "bos_token", a string or {"content": ...}; nullopt if it is
// absent or null.
std::optional<std::string> token_text(const Json& config, std::string_view key);

}  // namespace wideep::tokenizer
