#include "ep/exchange.h"

#include <optional>
#include <vector>

namespace wideep::ep {

std::unexpected<Error> blame(RankId rank, Error error) {
  return with_context(std::move(error), fmt::format("rank {}", index(rank)));
}

bool Exchange::stays_in_cache(int64_t num_results) const {
  if (options.shared_cache_bytes == 0) return false;
  int64_t ranks_here = 0;
  for (int32_t r = 0; r < num_ranks(); ++r)
    ranks_here += fabric.shape().same_node(RankId{r}, rank()) ? 1 : 0;
  return num_results * layout.result_bytes() * ranks_here <= options.shared_cache_bytes;
}

Status await_all(fabric::Fabric& fabric, Operation op, TimePoint deadline, HasCome has_come) {
  const int32_t num_ranks = fabric.shape().num_ranks();
  std::optional<std::pair<RankId, Error>> bad;
  int32_t next = 0;  // all before it have come
  const auto ready = [&] {
    for (; next < num_ranks; ++next) {
      const Result<bool> come = has_come(RankId{next});
      if (!come) bad.emplace(RankId{next}, come.error());
      if (!come || !*come) break;
    }
    return bad || next == num_ranks;
  };
  const auto missing = [&] {
    std::vector<RankId> ranks;
    for (int32_t r = next; r < num_ranks; ++r) {
      const Result<bool> come = has_come(RankId{r});
      if (!come || !*come) ranks.push_back(RankId{r});
    }
    return ranks;
  };
  WD_TRY(fabric.wait({.ready = ready, .what = op, .missing = missing}, deadline));
  if (bad) return blame(bad->first, std::move(bad->second));
  return {};
}

}  // namespace wideep::ep
