// Where things lie in a rank's arena. The same on all ranks and for every exchange: worst-case
// places, so that an address depends on nothing but (rank, token, k). docs/formats/ep.md draws it,
// fabric_all_to_all.h proves that one exchange after the other may use the same places.
//
//   rows     [tokens_max]                     this rank's rows, in the dispatch format
//   results  [tokens_max][top_k]              what comes back for them, in the combine format
//   lists    [num_ranks][tokens_max * top_k]  which rows each source wants computed here
//   regions  [regions][tokens_max]            rows of sources on other nodes, for all of this node
//
// A source on another node sends each row once per node, into the region that belongs to it there;
// the region lies in the arena of the rank that is the source's door there (fabric::Shape).
#pragma once

#include "base/ids.h"
#include "base/result.h"
#include "ep/all_to_all.h"
#include "fabric/fabric.h"

#include <cstdint>
#include <vector>

namespace wideep::ep {

struct ExchangeShape {
  int64_t hidden = 0;
  int64_t top_k = 0;
  int64_t tokens_max = 256;  // rows of one rank in one step
  RowFormats formats;
};

inline constexpr int64_t kHiddenMax = 1 << 20;
inline constexpr int64_t kTopKMax = 64;
inline constexpr int64_t kTokensMax = 1 << 20;
Status validate(const ExchangeShape& shape);

// Where rows of a source on another node land.
struct Region {
  RankId owner{};
  int64_t number = 0;  // among the owner's regions
};

class ExchangeLayout {
 public:
  ExchangeLayout(const ExchangeShape& shape, const std::vector<NodeId>& node_of);

  int64_t arena_bytes() const { return arena_bytes_; }

  int64_t row_bytes() const { return row_bytes_; }

  int64_t result_bytes() const { return result_bytes_; }

  int64_t entries_max() const { return entries_max_; }

  int64_t row(int64_t token) const { return token * row_bytes_; }

  int64_t result(int64_t token, int64_t k) const {
    return results_ + (token * top_k_ + k) * result_bytes_;
  }

  int64_t list(RankId source) const { return lists_ + index(source) * list_bytes_; }

  int64_t region_row(const Region& region, int64_t token) const {
    return regions_ + (region.number * tokens_max_ + token) * row_bytes_;
  }

  // The region of `source` on the node of `reader`, another node.
  Region region_of(RankId source, RankId reader) const;

 private:
  fabric::Shape nodes_;  // who lives where
  int64_t top_k_;
  int64_t tokens_max_;
  int64_t entries_max_;
  int64_t row_bytes_;
  int64_t result_bytes_;
  int64_t list_bytes_;
  int64_t results_;  // offsets
  int64_t lists_;
  int64_t regions_;
  int64_t arena_bytes_;
};

// A line of a list: "compute row `token` of mine with the expert in your slot, it is my k-th". As
// it lies in memory and on the wire, little-endian. Example, token 258, slot 3, k 1: 02 01 00 00 03
// 00 01 00.
struct ListEntry {
  uint32_t token = 0;
  uint16_t slot = 0;
  uint16_t k = 0;
};

static_assert(sizeof(ListEntry) == 8);

}  // namespace wideep::ep
