#include "tokenizer/added_tokens.h"

#include "tokenizer/unicode.h"

#include <algorithm>
#include <utility>

namespace wideep::tokenizer {
namespace {

bool is_control(const AddedToken& token) {
  if (token.special) return true;
  const std::string_view text = token.content;
  if (text.size() < 3) return false;
  return (text.front() == '<' && text.back() == '>') || (text.front() == '[' && text.back() == ']');
}

Result<AddedToken> read_added_token(const Json& json, const AddedTokenLimits& limits) {
  AddedToken token;
  const Json* id = json.find("id");
  const std::optional<int64_t> number = id == nullptr ? std::nullopt : id->as_int();
  if (!number || *number < 0 || *number > limits.token_id_max) {
    return invalid_argument("added_tokens: id must be 0 to {}", limits.token_id_max);
  }
  token.id = TokenId{static_cast<int32_t>(*number)};
  const Json* content = json.find("content");
  if (content == nullptr || !content->is_string() || content->as_string()->empty() ||
      content->as_string()->size() > limits.content_bytes_max) {
    return invalid_argument("added_tokens: content of token {} must be 1 to {} bytes", *number,
                            limits.content_bytes_max);
  }
  token.content = *content->as_string();
  const auto flag = [&](std::string_view key, bool otherwise) {
    const Json* member = json.find(key);
    return member == nullptr ? otherwise : member->as_bool().value_or(otherwise);
  };
  token.single_word = flag("single_word", false);
  token.lstrip = flag("lstrip", false);
  token.rstrip = flag("rstrip", false);
  token.special = flag("special", false);
  token.normalized = flag("normalized", !token.special);
  token.control = is_control(token);
  return token;
}

// What single_word calls a word character: \w of Unicode regular expressions.
constexpr CategorySet kWord =
    kLetter | kMark | category_set(Category::kNd, Category::kNl, Category::kPc);

size_t previous_character(std::string_view text, size_t position) {
  do
    --position;
  while (position > 0 && (text[position] & 0xC0) == 0x80);
  return position;
}

bool ends_with_word(std::string_view text) {
  return !text.empty() && character_at(text, previous_character(text, text.size())).is(kWord);
}

bool starts_with_word(std::string_view text) {
  return character_at(text, 0).is(kWord);
}

size_t white_space_begin(std::string_view text) {
  size_t begin = text.size();
  while (begin > 0) {
    const size_t previous = previous_character(text, begin);
    if (!character_at(text, previous).is(kSpace)) break;
    begin = previous;
  }
  return begin;
}

size_t white_space_end(std::string_view text, size_t position) {
  for (Character c = character_at(text, position); c.is(kSpace); c = character_at(text, position)) {
    position += c.size;
  }
  return position;
}

}  // namespace

Result<std::vector<AddedToken>> read_added_tokens(const Json* json,
                                                  const AddedTokenLimits& limits) {
  std::vector<AddedToken> tokens;
  if (json == nullptr || json->is_null()) return tokens;
  const Json::Array* list = json->as_array();
  if (list == nullptr) return invalid_argument("added_tokens: must be an array");
  if (list->size() > limits.tokens_max) {
    return invalid_argument("added_tokens: {} tokens, at most {} allowed", list->size(),
                            limits.tokens_max);
  }
  for (const Json& entry : *list) {
    WD_ASSIGN_OR_RETURN(AddedToken token, read_added_token(entry, limits));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void TrustMap::append(size_t bytes, bool trusted) {
  if (bytes == 0) return;
  const size_t begin = runs_.empty() ? 0 : runs_.back().end;
  if (!runs_.empty() && runs_.back().trusted == trusted) {
    runs_.back().end += bytes;
  } else {
    runs_.push_back({begin + bytes, trusted});
  }
}

size_t TrustMap::run_of(size_t position) const {
  const auto run = std::upper_bound(runs_.begin(), runs_.end(), position,
                                    [](size_t at, const Run& r) { return at < r.end; });
  return static_cast<size_t>(run - runs_.begin());
}

bool TrustMap::trusted_at(size_t position) const {
  const size_t run = run_of(position);
  return run < runs_.size() && runs_[run].trusted;
}

bool TrustMap::is_trusted(size_t begin, size_t end) const {
  return trusted_at(begin) && end <= run_end(begin);
}

size_t TrustMap::run_end(size_t begin) const {
  const size_t run = run_of(begin);
  return run < runs_.size() ? runs_[run].end : SIZE_MAX;
}

AddedTokenMatcher::AddedTokenMatcher() : nodes_(1) {}

void AddedTokenMatcher::add(std::string_view pattern, const AddedToken& token) {
  if (pattern.empty()) return;
  starts_[static_cast<unsigned char>(pattern.front())] = true;
  int32_t node = 0;
  for (const char c : pattern) {
    const auto byte = static_cast<unsigned char>(c);
    int32_t next = child(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(nodes_.size());
      nodes_[static_cast<size_t>(node)].edges.emplace_back(byte, next);
      nodes_.emplace_back();
    }
    node = next;
  }
  // Two tokens of one content: the first keeps it.
  if (nodes_[static_cast<size_t>(node)].token >= 0) return;
  nodes_[static_cast<size_t>(node)].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

int32_t AddedTokenMatcher::child(int32_t node, unsigned char byte) const {
  for (const auto& [edge, next] : nodes_[static_cast<size_t>(node)].edges) {
    if (edge == byte) return next;
  }
  return -1;
}

// The longest token that begins at `begin` and that the trust of its bytes allows.
std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::match_at(std::string_view text,
                                                                    size_t begin,
                                                                    TrustView trust) const {
  if (!starts_[static_cast<unsigned char>(text[begin])]) return std::nullopt;
  std::optional<Match> longest;
  int32_t node = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    node = child(node, static_cast<unsigned char>(text[i]));
    if (node < 0) break;
    const int32_t found = nodes_[static_cast<size_t>(node)].token;
    if (found < 0) continue;
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    if (!token.control || trust.is_trusted(begin, i + 1)) longest = Match{&token, i + 1};
  }
  return longest;
}

void AddedTokenMatcher::split(std::string_view text,
                              TrustView trust,
                              FunctionRef<void(const Part&)> part) const {
  size_t done = 0;
  const auto plain_until = [&](size_t end) {
    if (end > done) part({done, end, std::nullopt});
  };
  for (size_t at = 0; !empty() && at < text.size();) {
    const std::optional<Match> match = match_at(text, at, trust);
    if (!match) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at = match->end;
    if (match->token->single_word &&
        (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) {
      continue;
    }
    if (match->token->lstrip) begin = done + white_space_begin(text.substr(done, begin - done));
    if (match->token->rstrip) end = white_space_end(text, end);
    plain_until(begin);
    part({begin, end, match->token->id});
    done = at = end;
  }
  plain_until(text.size());
}

}  // namespace wideep::tokenizer
