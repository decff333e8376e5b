// The source's side of an exchange: this rank's rows leave, and their results are summed.
//
// Rows are encoded once, into this rank's arena, where the experts of this node read them; to
// another node each row goes once, however many of its experts live there. Lists tell each expert
// rank which rows it shall compute.
#pragma once

#include "base/memory.h"
#include "ep/exchange.h"

#include <cstdint>
#include <vector>

namespace wideep::ep {

class Outgoing {
 public:
  explicit Outgoing(Exchange exchange);

  // Sends everything: rows, lists and dispatch words. `chunk`: tokens between two words.
  Status dispatch(const ExchangeId& id,
                  MatrixView<const float> h,
                  const Routing& routing,
                  int64_t chunk);

  // Waits for the results and adds them: see AllToAll::combine.
  Status combine(MatrixView<const float> shared, MatrixView<float> x, TimePoint deadline);

 private:
  struct Peer {
    std::vector<ListEntry> entries;  // of the present chunk
    int64_t total = 0;               // entries of this exchange
    int64_t sent = 0;                // so far
  };

  struct RemoteNode {
    std::vector<RankId> ranks;
    Region region;                   // where this rank's rows go there
    std::vector<uint8_t> is_wanted;  // [tokens of the chunk]
  };

  void choose_targets(const Routing& routing);
  SlotAddress choose(ExpertId expert, int64_t token) const;
  Status send_chunk(MatrixView<const float> h, int64_t begin, int64_t end);
  void encode_rows(MatrixView<const float> h, int64_t begin, int64_t end);
  int64_t piece_rows() const;
  int64_t try_both_ways(MatrixView<const float> h, int64_t begin, int64_t end);
  void copy_piece(const std::byte* from, int64_t bytes, std::byte* to, bool streams) const;
  Status send_rows(RemoteNode& node, int64_t begin, int64_t end);
  Status send_lists();
  Status send_words();

  Exchange exchange_;
  ExchangeId id_;
  int64_t num_tokens_ = 0;
  std::vector<float> weights_;        // [num_tokens][top_k]
  std::vector<SlotAddress> targets_;  // [num_tokens][top_k]
  std::vector<Peer> peers_;           // [num_ranks]
  std::vector<RemoteNode> remote_nodes_;
  AlignedBuffer encoded_;                          // [threads][piece_rows] rows
  bool has_neighbours_ = false;                    // other ranks on this node
  std::vector<const std::byte*> result_pointers_;  // [tokens_max][top_k], into the arena
};

}  // namespace wideep::ep
