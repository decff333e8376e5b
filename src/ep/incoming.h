// The experts' side of an exchange: rows of all sources arrive, are handed out slot by slot, and
// their results go home.
//
// A row is read where it lies (the source's arena, or its region on this node), the result of a
// source on this node is written straight into its results; only results for other nodes pass
// through a buffer here.
#pragma once

#include "base/memory.h"
#include "ep/exchange.h"
#include "ep/inbox.h"

#include <cstdint>
#include <vector>

namespace wideep::ep {

class Incoming {
 public:
  explicit Incoming(Exchange exchange);

  // A new exchange: nothing has arrived yet.
  void open(const ExchangeId& id);

  // Experts that are worth starting: with all their rows, or with at least `at_least`. Waits until
  // there are some; no experts when everything is computed.
  Result<ExpertBatch> next(int64_t at_least, TimePoint deadline);
  // The results of the last batch are written: send them home.
  Status finish();

 private:
  struct Source {
    int64_t total = -1;   // entries in its list; unknown before its first word
    int64_t arrived = 0;  // taken over
    int64_t returned = 0;
    bool is_answered = false;

    bool is_complete() const { return arrived == total; }
  };

  // Takes over what has arrived; whether anything has.
  Result<bool> receive();
  Result<bool> receive_from(RankId source);
  Status take_entries(RankId source, int64_t end);
  Status await_more(TimePoint deadline);
  // Sends its combine word to every source that has all its results.
  Status answer();
  ExpertBatch hand_out(std::span<const Inbox::Group> groups);
  // Entries that this rank is known to compute in this exchange, so far.
  int64_t num_expected() const;
  const std::byte* row(RankId source, int64_t token) const;
  void convert_inputs();
  std::byte* output(const Arrival& arrival, size_t place);
  bool is_here(RankId source) const;

  Exchange exchange_;
  ExchangeId id_;
  std::vector<Source> sources_;  // [num_ranks]
  int32_t num_complete_ = 0;
  Inbox inbox_;
  std::vector<Region> regions_;  // [num_ranks], on this node; of sources on other nodes

  // The batch that is out; a place is an index into batch_.
  std::vector<Arrival> batch_;
  std::vector<const std::byte*> in_;
  std::vector<std::byte*> out_;
  std::vector<uint8_t> out_is_far_;
  std::vector<ExpertRows> experts_;
  AlignedBuffer results_;  // for other nodes

  // Where the input format is another than that of the wire: the batch's rows converted.
  struct Converted {
    uint64_t batch = 0;
    int64_t place = 0;
  };

  AlignedBuffer inputs_;
  AlignedBuffer decoded_;                     // [threads] f32 rows
  std::vector<const std::byte*> to_convert_;  // by place
  std::vector<Converted> converted_;          // [num_ranks][tokens_max]
  uint64_t batch_number_ = 0;
};

}  // namespace wideep::ep
