#include "tokenizer/bpe.h"

#include "base/check.h"

#include <algorithm>
#include <array>
#include <bit>
#include <queue>
#include <string>
#include <tuple>
#include <utility>

namespace wideep::tokenizer {
namespace {

constexpr uint64_t kEmptyKey = UINT64_MAX;
// Up to here the quadratic scan of a small array beats the heap.
constexpr size_t kShortPieceBytes = 64;
constexpr uint32_t kNoMerge = UINT32_MAX;

uint64_t key_of(TokenId left, TokenId right) {
  return uint64_t{static_cast<uint32_t>(index(left))} << 32 | static_cast<uint32_t>(index(right));
}

bool is_empty_or_null(const Json* json) {
  return json == nullptr || json->is_null() ||
         (json->as_string() != nullptr && json->as_string()->empty());
}

bool is_false_or_absent(const Json* json) {
  return json == nullptr || json->is_null() || json->as_bool() == std::optional(false);
}

Status check_options(const Json& json) {
  const Json* type = json.find("type");
  // Files of 2019 carry no type; only BPE has merges.
  if (type != nullptr && (type->as_string() == nullptr || *type->as_string() != "BPE")) {
    return invalid_argument("model: type {} is not supported, only BPE", type->dump());
  }
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!is_empty_or_null(json.find(key)))
      return invalid_argument("model: {} is not supported", key);
  }
  if (!is_false_or_absent(json.find("byte_fallback"))) {
    return invalid_argument("model: byte_fallback is not supported");
  }
  const Json* dropout = json.find("dropout");
  if (dropout != nullptr && dropout->as_double().value_or(0) != 0) {
    return invalid_argument("model: dropout is not supported");
  }
  return {};
}

}  // namespace

void Bpe::MergeTable::reserve(size_t num_merges) {
  entries_.assign(std::bit_ceil(2 * num_merges + 2), Entry{kEmptyKey, {}});
}

size_t Bpe::MergeTable::slot_of(uint64_t key) const {
  const size_t mask = entries_.size() - 1;
  size_t slot = (key * 0x9E37'79B9'7F4A'7C15) >> 32 & mask;
  while (entries_[slot].key != key && entries_[slot].key != kEmptyKey)
    slot = (slot + 1) & mask;
  return slot;
}

void Bpe::MergeTable::set(TokenId left, TokenId right, Merge merge) {
  const uint64_t key = key_of(left, right);
  entries_[slot_of(key)] = {key, merge};
}

const Bpe::Merge* Bpe::MergeTable::find(TokenId left, TokenId right) const {
  const Entry& entry = entries_[slot_of(key_of(left, right))];
  return entry.key == kEmptyKey ? nullptr : &entry.merge;
}

Result<Bpe> Bpe::from_json(const Json& json,
                           std::span<const TokenId> never,
                           const BpeLimits& limits) {
  WD_TRY(check_options(json));
  Bpe bpe;
  WD_TRY(bpe.read_vocabulary(json, limits));
  WD_TRY(bpe.read_bytes());
  bpe.never_.resize(static_cast<size_t>(bpe.vocabulary_.size()));
  for (const TokenId id : never) {
    if (index(id) >= 0 && index(id) < bpe.vocabulary_.size()) bpe.never_[subscript(id)] = true;
  }
  for (const TokenId id : bpe.byte_tokens_) {
    if (bpe.is_never(id))
      return invalid_argument("token {} is a byte and a control token", index(id));
  }
  WD_TRY(bpe.read_merges(json, limits));
  const Json* ignore_merges = json.find("ignore_merges");
  bpe.mark_direct(!is_false_or_absent(ignore_merges));
  return bpe;
}

Status Bpe::read_vocabulary(const Json& json, const BpeLimits& limits) {
  const Json* vocab = json.find("vocab");
  if (vocab == nullptr || !vocab->is_object()) return invalid_argument("model: no vocab");
  for (const auto& [key, value] : *vocab->as_object()) {
    const std::optional<int64_t> id = value.as_int();
    if (!id || *id < 0 || *id > limits.token_id_max) {
      return invalid_argument("model: vocab entry '{}' has id {}, allowed are 0 to {}",
                              key.substr(0, 100), value.dump().substr(0, 100), limits.token_id_max);
    }
    // A key outside the alphabet is an added token that is listed here too.
    const std::string bytes = bytes_of_alphabet(key).value_or(key);
    const Status added = vocabulary_.add(bytes, TokenId{static_cast<int32_t>(*id)});
    if (!added) return with_context(added.error(), "model: vocab");
  }
  return {};
}

Status Bpe::read_bytes() {
  for (int byte = 0; byte < 256; ++byte) {
    const char raw = static_cast<char>(byte);
    const auto id = vocabulary_.find({&raw, 1});
    if (!id) return invalid_argument("model: vocab has no token for byte 0x{:02X}", byte);
    byte_tokens_.push_back(*id);
  }
  return {};
}

Status Bpe::read_merges(const Json& json, const BpeLimits& limits) {
  const Json* merges = json.find("merges");
  if (merges == nullptr || !merges->is_array()) return invalid_argument("model: no merges");
  const Json::Array& list = *merges->as_array();
  if (static_cast<int64_t>(list.size()) > limits.merges_max) {
    return invalid_argument("model: {} merges, at most {} allowed", list.size(), limits.merges_max);
  }
  merges_.reserve(list.size());
  for (uint32_t rank = 0; rank < list.size(); ++rank)
    WD_TRY(read_merge(list[rank], rank));
  return {};
}

// "a b" in older files, ["a","b"] in newer ones (where a token may contain a space).
Status Bpe::read_merge(const Json& json, uint32_t rank) {
  std::string_view left;
  std::string_view right;
  if (const std::string* text = json.as_string()) {
    const size_t space = text->find(' ');
    if (space != std::string::npos && text->find(' ', space + 1) == std::string::npos) {
      left = std::string_view(*text).substr(0, space);
      right = std::string_view(*text).substr(space + 1);
    }
  } else if (const Json::Array* pair = json.as_array(); pair != nullptr && pair->size() == 2) {
    if ((*pair)[0].is_string()) left = *(*pair)[0].as_string();
    if ((*pair)[1].is_string()) right = *(*pair)[1].as_string();
  }
  const auto left_bytes = bytes_of_alphabet(left);
  const auto right_bytes = bytes_of_alphabet(right);
  if (left.empty() || right.empty() || !left_bytes || !right_bytes) {
    return invalid_argument("model: merge {} is no pair of tokens: {}", rank,
                            json.dump().substr(0, 200));
  }
  const auto left_id = vocabulary_.find(*left_bytes);
  const auto right_id = vocabulary_.find(*right_bytes);
  const auto result = vocabulary_.find(*left_bytes + *right_bytes);
  if (!left_id || !right_id || !result) {
    return invalid_argument("model: merge {} ({}) is of or into a token that vocab lacks", rank,
                            json.dump().substr(0, 200));
  }
  if (!is_never(*result)) merges_.set(*left_id, *right_id, {rank, *result});
  return {};
}

bool Bpe::is_never(TokenId id) const {
  return never_[subscript(id)];
}

void Bpe::mark_direct(bool all) {
  direct_.resize(static_cast<size_t>(vocabulary_.size()));
  std::vector<TokenId> tokens;
  for (int32_t i = 0; i < vocabulary_.size(); ++i) {
    const TokenId id{i};
    const std::string_view bytes = vocabulary_.bytes(id);
    if (bytes.empty() || is_never(id) || vocabulary_.find(bytes) != id) continue;
    tokens.clear();
    if (!all) encode(bytes, tokens);  // not yet marked, so this merges
    direct_[subscript(id)] = all || (tokens.size() == 1 && tokens[0] == id);
  }
}

void Bpe::encode(std::string_view piece, std::vector<TokenId>& out) const {
  const std::optional<TokenId> whole = vocabulary_.find(piece);
  if (whole && direct_[subscript(*whole)]) {
    out.push_back(*whole);
  } else if (piece.size() <= kShortPieceBytes) {
    merge_short(piece, out);
  } else {
    merge_long(piece, out);
  }
}

void Bpe::merge_short(std::string_view piece, std::vector<TokenId>& out) const {
  struct Symbol {
    TokenId id;
    Merge with_next;  // rank kNoMerge if there is none
  };

  std::array<Symbol, kShortPieceBytes> symbols;
  size_t count = piece.size();
  for (size_t i = 0; i < count; ++i) {
    symbols[i].id = byte_tokens_[static_cast<unsigned char>(piece[i])];
  }
  const auto look_up = [&](size_t i) {
    const Merge* merge = i + 1 < count ? merges_.find(symbols[i].id, symbols[i + 1].id) : nullptr;
    symbols[i].with_next = merge == nullptr ? Merge{kNoMerge, {}} : *merge;
  };
  for (size_t i = 0; i < count; ++i)
    look_up(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (symbols[i].with_next.rank < symbols[best].with_next.rank) best = i;
    }
    if (symbols[best].with_next.rank == kNoMerge) break;
    symbols[best].id = symbols[best].with_next.result;
    std::copy(symbols.begin() + best + 2, symbols.begin() + count, symbols.begin() + best + 1);
    --count;
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  for (size_t i = 0; i < count; ++i)
    out.push_back(symbols[i].id);
}

void Bpe::merge_long(std::string_view piece, std::vector<TokenId>& out) const {
  constexpr size_t kNone = SIZE_MAX;

  // A list of symbols in an array; a symbol that was merged into its left neighbour is dead.
  struct Symbol {
    TokenId id;
    size_t previous;
    size_t next;
    bool dead = false;
  };

  struct Candidate {
    uint32_t rank;
    size_t left;
    TokenId left_id;   // as they were when the candidate was queued: if they changed since, it is
    TokenId right_id;  // stale
    TokenId result;

    bool operator>(const Candidate& other) const {
      return std::tie(rank, left) > std::tie(other.rank, other.left);
    }
  };

  const size_t count = piece.size();
  std::vector<Symbol> symbols(count);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  for (size_t i = 0; i < count; ++i) {
    symbols[i] = {byte_tokens_[static_cast<unsigned char>(piece[i])], i == 0 ? kNone : i - 1,
                  i + 1 == count ? kNone : i + 1};
  }
  const auto enqueue = [&](size_t left) {
    if (left == kNone || symbols[left].next == kNone) return;
    const TokenId left_id = symbols[left].id;
    const TokenId right_id = symbols[symbols[left].next].id;
    if (const Merge* merge = merges_.find(left_id, right_id)) {
      queue.push({merge->rank, left, left_id, right_id, merge->result});
    }
  };
  for (size_t i = 0; i < count; ++i)
    enqueue(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.left];
    if (left.dead || left.id != best.left_id || left.next == kNone) continue;
    Symbol& right = symbols[left.next];
    if (right.id != best.right_id) continue;
    left.id = best.result;
    right.dead = true;
    left.next = right.next;
    if (left.next != kNone) symbols[left.next].previous = best.left;
    enqueue(best.left);
    enqueue(left.previous);
  }
  for (size_t i = 0; i != kNone; i = symbols[i].next)
    out.push_back(symbols[i].id);
}

}  // namespace wideep::tokenizer
