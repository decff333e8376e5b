#include "tokenizer/tokenizer.h"

#include "base/file.h"
#include "base/utf8.h"
#include "tokenizer/unicode.h"

#include <algorithm>
#include <utility>

namespace wideep::tokenizer {
namespace {

const JsonLimits kJsonLimits{.depth_max = 32, .values_max = 32 << 20};

Result<Json> read_json(const std::string& path, int64_t bytes_max) {
  WD_ASSIGN_OR_RETURN(const std::string text, read_file(path, bytes_max));
  auto json = parse_json(text, kJsonLimits);
  if (!json) return with_context(json.error(), path);
  return std::move(*json);
}

bool is_true(const Json& config, std::string_view key) {
  const Json* member = config.find(key);
  return member != nullptr && member->as_bool() == std::optional(true);
}

}  // namespace

std::optional<std::string> token_text(const Json& config, std::string_view key) {
  const Json* member = config.find(key);
  if (member != nullptr && member->is_object()) member = member->find("content");
  if (member == nullptr || !member->is_string()) return std::nullopt;
  return *member->as_string();
}

Tokenizer::Tokenizer(
    Private, Bpe bpe, PreTokenizer pre_tokenizer, Normalizer normalizer, int64_t input_bytes_max)
    : bpe_(std::move(bpe)),
      pre_tokenizer_(std::move(pre_tokenizer)),
      normalizer_(normalizer),
      input_bytes_max_(input_bytes_max) {}

Result<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::string& model_dir,
                                                   const TokenizerLimits& limits) {
  WD_ASSIGN_OR_RETURN(const Json tokenizer,
                      read_json(model_dir + "/tokenizer.json", limits.file_bytes_max));
  auto config = read_json(model_dir + "/tokenizer_config.json", limits.file_bytes_max);
  if (!config) {
    if (config.error().code != ErrorCode::kNotFound) return std::unexpected(config.error());
    config = Json();
  }
  auto result = from_json(tokenizer, *config, limits);
  if (!result) return with_context(result.error(), model_dir + "/tokenizer.json");
  return result;
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_json(const Json& tokenizer,
                                                        const Json& config,
                                                        const TokenizerLimits& limits) {
  const Json* model = tokenizer.find("model");
  const Json* pre_tokenizer = tokenizer.find("pre_tokenizer");
  if (model == nullptr || pre_tokenizer == nullptr) {
    return invalid_argument("needs the keys model and pre_tokenizer");
  }
  WD_ASSIGN_OR_RETURN(std::vector<AddedToken> added,
                      read_added_tokens(tokenizer.find("added_tokens"), limits.added_tokens));
  std::vector<TokenId> control;
  for (const AddedToken& token : added) {
    if (token.control) control.push_back(token.id);
  }
  WD_ASSIGN_OR_RETURN(Bpe bpe, Bpe::from_json(*model, control, limits.bpe));
  WD_ASSIGN_OR_RETURN(PreTokenizer cutter, PreTokenizer::from_json(*pre_tokenizer));
  WD_ASSIGN_OR_RETURN(const Normalizer normalizer, read_normalizer(tokenizer.find("normalizer")));
  auto result = std::make_unique<Tokenizer>(Private{}, std::move(bpe), std::move(cutter),
                                            normalizer, limits.input_bytes_max);
  WD_TRY(result->add_tokens(std::move(added)));
  WD_ASSIGN_OR_RETURN(PostProcessor post_processor,
                      read_post_processor(tokenizer.find("post_processor"), result->vocab_size()));
  WD_TRY(result->read_config(config, std::move(post_processor)));
  return result;
}

Status Tokenizer::add_tokens(std::vector<AddedToken> tokens) {
  added_tokens_ = std::move(tokens);
  vocab_size_ = bpe_.vocabulary().size();
  for (const AddedToken& token : added_tokens_) {
    vocab_size_ = std::max(vocab_size_, index(token.id) + 1);
  }
  added_index_.assign(static_cast<size_t>(vocab_size_), -1);
  for (size_t i = 0; i < added_tokens_.size(); ++i) {
    const AddedToken& token = added_tokens_[i];
    int32_t& place = added_index_[subscript(token.id)];
    if (place >= 0) return invalid_argument("added_tokens: id {} appears twice", index(token.id));
    place = static_cast<int32_t>(i);
    if (!token.normalized) {
      raw_matcher_.add(token.content, token);
    } else if (normalizer_ == Normalizer::kNfc) {
      normalized_matcher_.add(normalize_nfc(token.content), token);
    } else {
      normalized_matcher_.add(token.content, token);
    }
  }
  return {};
}

// A TemplateProcessing wins; without one, add_bos_token and add_eos_token decide.
Status Tokenizer::read_config(const Json& config, PostProcessor post_processor) {
  const auto find = [&](std::string_view key) -> std::optional<TokenId> {
    const std::optional<std::string> text = token_text(config, key);
    return text ? token_to_id(*text) : std::nullopt;
  };
  bos_id_ = find("bos_token");
  eos_id_ = find("eos_token");
  post_processor_ = std::move(post_processor);
  if (post_processor_.has_template) return {};
  if (is_true(config, "add_bos_token")) {
    if (!bos_id_) return invalid_argument("add_bos_token is set, but bos_token names no token");
    post_processor_.prefix.push_back(*bos_id_);
  }
  if (is_true(config, "add_eos_token")) {
    if (!eos_id_) return invalid_argument("add_eos_token is set, but eos_token names no token");
    post_processor_.suffix.push_back(*eos_id_);
  }
  return {};
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text,
                                               const EncodeOptions& options) const {
  if (static_cast<int64_t>(text.size()) > input_bytes_max_) {
    return error(ErrorCode::kExhausted, "text has {} bytes, at most {} allowed", text.size(),
                 input_bytes_max_);
  }
  std::string repaired;
  if (!is_valid_utf8(text)) {
    repaired = sanitize_utf8(text);
    text = repaired;
  }
  TrustMap trust;
  trust.append(text.size(), options.parse_special);
  WD_ASSIGN_OR_RETURN(std::vector<TokenId> ids, encode_trusted(text, trust));
  if (options.add_special_tokens) {
    ids.insert(ids.begin(), post_processor_.prefix.begin(), post_processor_.prefix.end());
    ids.insert(ids.end(), post_processor_.suffix.begin(), post_processor_.suffix.end());
  }
  return ids;
}

Result<std::vector<TokenId>> Tokenizer::encode_chat(std::span<const TextSegment> segments) const {
  std::string text;
  TrustMap trust;
  for (const TextSegment& segment : segments) {
    const size_t begin = text.size();
    if (is_valid_utf8(segment.text)) {
      text += segment.text;
    } else {
      text += sanitize_utf8(segment.text);
    }
    if (static_cast<int64_t>(text.size()) > input_bytes_max_) {
      return error(ErrorCode::kExhausted, "prompt has more than {} bytes", input_bytes_max_);
    }
    trust.append(text.size() - begin, segment.origin == TextOrigin::kTemplate);
  }
  return encode_trusted(text, trust);
}

// Added tokens first, on the text as it came; what lies between them is normalised and encoded.
Result<std::vector<TokenId>> Tokenizer::encode_trusted(std::string_view text,
                                                       const TrustMap& trust) const {
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 4 + 8);
  Status status;
  raw_matcher_.split(text, {trust}, [&](const AddedTokenMatcher::Part& part) {
    if (!status) return;
    if (part.token) {
      ids.push_back(*part.token);
    } else {
      status = encode_gap(text.substr(part.begin, part.end - part.begin), {trust, part.begin}, ids);
    }
  });
  WD_TRY(status);
  return ids;
}

Status Tokenizer::encode_gap(std::string_view gap,
                             TrustView trust,
                             std::vector<TokenId>& out) const {
  std::string normalized;
  TrustMap normalized_trust;
  if (normalizer_ == Normalizer::kNfc) {
    for (size_t begin = 0; begin < gap.size();) {
      const size_t end =
          std::min(gap.size(), trust.map.run_end(trust.offset + begin) - trust.offset);
      const std::string run = normalize_nfc(gap.substr(begin, end - begin));
      normalized += run;
      normalized_trust.append(run.size(), trust.is_trusted(begin, end));
      begin = end;
    }
    gap = normalized;
  }
  const TrustView view = normalizer_ == Normalizer::kNfc ? TrustView{normalized_trust} : trust;
  Status status;
  normalized_matcher_.split(gap, view, [&](const AddedTokenMatcher::Part& part) {
    if (!status) return;
    if (part.token) {
      out.push_back(*part.token);
    } else {
      status = encode_plain(gap.substr(part.begin, part.end - part.begin), out);
    }
  });
  return status;
}

Status Tokenizer::encode_plain(std::string_view text, std::vector<TokenId>& out) const {
  return pre_tokenizer_.split(text, [&](std::string_view piece) { bpe_.encode(piece, out); });
}

const AddedToken* Tokenizer::added_token(TokenId id) const {
  if (index(id) < 0 || index(id) >= vocab_size_) return nullptr;
  const int32_t place = added_index_[subscript(id)];
  return place < 0 ? nullptr : &added_tokens_[static_cast<size_t>(place)];
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  const AddedToken* added = added_token(id);
  return added != nullptr ? std::string_view(added->content) : bpe_.vocabulary().bytes(id);
}

bool Tokenizer::is_special(TokenId id) const {
  const AddedToken* added = added_token(id);
  return added != nullptr && added->special;
}

bool Tokenizer::is_control(TokenId id) const {
  const AddedToken* added = added_token(id);
  return added != nullptr && added->control;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, const DecodeOptions& options) const {
  std::string bytes;
  for (const TokenId id : ids) {
    if (!options.skip_special || !is_special(id)) bytes += token_bytes(id);
  }
  return is_valid_utf8(bytes) ? bytes : sanitize_utf8(bytes);
}

std::optional<TokenId> Tokenizer::token_to_id(std::string_view text) const {
  for (const AddedToken& token : added_tokens_) {
    if (token.content == text) return token.id;
  }
  return bpe_.vocabulary().find(text);
}

}  // namespace wideep::tokenizer
