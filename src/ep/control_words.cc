#include "ep/control_words.h"

namespace wideep::ep {
namespace {

// Where words[] carries what.
constexpr size_t kProgram = 0;
constexpr size_t kLayer = 1;
constexpr size_t kTotal = 2;
constexpr size_t kHasWork = 1;
constexpr size_t kDraftDepth = 2;
constexpr int64_t kDraftDepthMax = 64;

// Sequence numbers wrap: "later" is a small positive difference.
bool is_later(uint64_t seq, uint64_t than) {
  return static_cast<int64_t>(seq - than) > 0;
}

Result<bool> has_come(const std::optional<fabric::Signal>& signal, uint64_t seq) {
  if (!signal) return false;
  if (is_later(signal->seq, seq))
    return error(ErrorCode::kDataLoss, "sent word {}, expected at most {}", signal->seq, seq);
  return signal->seq == seq;
}

Result<bool> has_come(const std::optional<fabric::Signal>& signal, const ExchangeId& id) {
  WD_ASSIGN_OR_RETURN(const bool here, has_come(signal, id.seq));
  if (!here) return false;
  const auto layer = static_cast<int64_t>(signal->words[kLayer]);
  if (signal->words[kProgram] != id.program || layer != index(id.layer)) {
    return invalid_argument("runs program {:016x} at layer {}, this rank {:016x} at layer {}",
                            signal->words[kProgram], layer, id.program, index(id.layer));
  }
  return true;
}

uint64_t to_word(int64_t value) {
  return static_cast<uint64_t>(value);
}

}  // namespace

fabric::Signal encode(const ExchangeId& id, const DispatchWord& word) {
  return {.seq = id.seq,
          .count = to_word(word.count),
          .words = {id.program, to_word(index(id.layer)), to_word(word.total)}};
}

fabric::Signal encode(const ExchangeId& id, const CombineWord& word) {
  return {
      .seq = id.seq, .count = to_word(word.count), .words = {id.program, to_word(index(id.layer))}};
}

fabric::Signal encode(uint64_t seq, uint64_t config_hash, const StepWish& wish) {
  return {.seq = seq,
          .count = to_word(wish.num_tokens),
          .words = {config_hash, wish.has_work ? uint64_t{1} : 0, to_word(wish.draft_depth)}};
}

Result<std::optional<DispatchWord>> parse_dispatch(const std::optional<fabric::Signal>& signal,
                                                   const ExchangeId& id,
                                                   int64_t entries_max) {
  WD_ASSIGN_OR_RETURN(const bool here, has_come(signal, id));
  if (!here) return std::nullopt;
  const DispatchWord word{.count = static_cast<int64_t>(signal->count),
                          .total = static_cast<int64_t>(signal->words[kTotal])};
  if (word.total < 0 || word.total > entries_max || word.count < 0 || word.count > word.total) {
    return error(ErrorCode::kDataLoss, "sent {} of {} entries, at most {} allowed", word.count,
                 word.total, entries_max);
  }
  return word;
}

Result<std::optional<CombineWord>> parse_combine(const std::optional<fabric::Signal>& signal,
                                                 const ExchangeId& id,
                                                 int64_t entries_max) {
  WD_ASSIGN_OR_RETURN(const bool here, has_come(signal, id));
  if (!here) return std::nullopt;
  const CombineWord word{.count = static_cast<int64_t>(signal->count)};
  if (word.count < 0 || word.count > entries_max)
    return error(ErrorCode::kDataLoss, "returned {} rows, at most {} allowed", word.count,
                 entries_max);
  return word;
}

Result<std::optional<StepWish>> parse_step(const std::optional<fabric::Signal>& signal,
                                           uint64_t seq,
                                           uint64_t config_hash,
                                           int64_t tokens_max) {
  WD_ASSIGN_OR_RETURN(const bool here, has_come(signal, seq));
  if (!here) return std::nullopt;
  if (signal->words[kProgram] != config_hash)
    return invalid_argument("runs configuration {:016x}, this rank {:016x}",
                            signal->words[kProgram], config_hash);
  const auto num_tokens = static_cast<int64_t>(signal->count);
  const auto draft_depth = static_cast<int64_t>(signal->words[kDraftDepth]);
  if (num_tokens < 0 || num_tokens > tokens_max || draft_depth < 0 ||
      draft_depth > kDraftDepthMax || signal->words[kHasWork] > 1) {
    return error(ErrorCode::kDataLoss, "wishes {} tokens (at most {}), depth {}", num_tokens,
                 tokens_max, draft_depth);
  }
  return StepWish{.num_tokens = num_tokens,
                  .has_work = signal->words[kHasWork] == 1,
                  .draft_depth = static_cast<int32_t>(draft_depth)};
}

Status check(const ListEntry& entry, const EntryLimits& limits) {
  if (entry.token < limits.tokens_max && entry.slot < limits.num_slots && entry.k < limits.top_k)
    return {};
  return error(ErrorCode::kDataLoss, "listed token {} (of {}), slot {} (of {}), choice {} (of {})",
               entry.token, limits.tokens_max, entry.slot, limits.num_slots, entry.k, limits.top_k);
}

}  // namespace wideep::ep
