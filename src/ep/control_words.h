// The three words of the exchange as they travel in a fabric::Signal, and the check of what comes
// from others: bytes of shared memory or a wire are copied, then checked, then believed.
// docs/formats/ep.md has the tables.
#pragma once

#include "base/ids.h"
#include "base/result.h"
#include "ep/all_to_all.h"
#include "ep/exchange_layout.h"
#include "fabric/fabric.h"

#include <cstdint>
#include <optional>

namespace wideep::ep {

inline constexpr fabric::ChannelId kDispatchChannel{0};
inline constexpr fabric::ChannelId kCombineChannel{1};
inline constexpr int32_t kNumChannels = 6;  // what Shape::num_channels must at least be

// The line of step t, one of four.
constexpr fabric::ChannelId step_channel(uint64_t seq) {
  return fabric::ChannelId{2 + static_cast<int32_t>(seq % 4)};
}

// Which exchange, and under which rules: equal on all ranks or an error.
struct ExchangeId {
  uint64_t seq = 0;
  LayerId layer{};
  uint64_t program = 0;  // hash of the step's program and of everything that must agree
};

// "I want `total` rows computed by you, `count` of them are here."
struct DispatchWord {
  int64_t count = 0;
  int64_t total = 0;
};

// "The `count` rows that you wanted are back."
struct CombineWord {
  int64_t count = 0;
};

fabric::Signal encode(const ExchangeId& id, const DispatchWord& word);
fabric::Signal encode(const ExchangeId& id, const CombineWord& word);
fabric::Signal encode(uint64_t seq, uint64_t config_hash, const StepWish& wish);

// Nothing: the word of this exchange has not come yet. kDataLoss: the sender is ahead (which the
// protocol rules out) or the counts cannot be; kInvalidArgument: it runs another program or layer.
Result<std::optional<DispatchWord>> parse_dispatch(const std::optional<fabric::Signal>& signal,
                                                   const ExchangeId& id,
                                                   int64_t entries_max);
Result<std::optional<CombineWord>> parse_combine(const std::optional<fabric::Signal>& signal,
                                                 const ExchangeId& id,
                                                 int64_t entries_max);
Result<std::optional<StepWish>> parse_step(const std::optional<fabric::Signal>& signal,
                                           uint64_t seq,
                                           uint64_t config_hash,
                                           int64_t tokens_max);

// What an entry of a list may name.
struct EntryLimits {
  int64_t tokens_max = 0;
  int64_t num_slots = 0;  // that hold an expert
  int64_t top_k = 0;
};

Status check(const ListEntry& entry, const EntryLimits& limits);

}  // namespace wideep::ep
