#include "epp/pickers.h"

#include "base/random.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace wideep::epp {
namespace {

struct Ranked {
  double rank;
  uint64_t draw;  // ties fall by it
  const ScoredEndpoint* candidate;
};

// Log of U^(1/weight): the same order, without underflow.
double weighted_chance(double weight, Random& random) {
  return std::log(std::max(random.uniform(), std::numeric_limits<double>::min())) / weight;
}

}  // namespace

std::vector<ScoredEndpoint> RankPicker::pick(PickContext& context,
                                             std::vector<ScoredEndpoint> candidates) {
  const uint64_t seed = context.request.random;
  Random random(seed);
  const bool all_zero =
      std::ranges::all_of(candidates, [](const ScoredEndpoint& c) { return c.score <= 0; });
  const auto rank_of = [&](const ScoredEndpoint& candidate) -> std::optional<double> {
    if (by_ == PickBy::kScore) return candidate.score;
    if (by_ == PickBy::kChance) return 0.0;
    if (all_zero) return weighted_chance(1, random);
    if (candidate.score <= 0) return std::nullopt;
    return weighted_chance(candidate.score, random);
  };
  std::vector<Ranked> ranked;
  ranked.reserve(candidates.size());
  for (const ScoredEndpoint& candidate : candidates) {
    const std::optional<double> rank = rank_of(candidate);
    if (rank) ranked.push_back({*rank, random_bits(seed, ranked.size()), &candidate});
  }
  const size_t count = std::min(endpoints_max_, ranked.size());
  std::ranges::partial_sort(ranked, ranked.begin() + static_cast<std::ptrdiff_t>(count),
                            [](const Ranked& a, const Ranked& b) {
                              return a.rank != b.rank ? a.rank > b.rank : a.draw > b.draw;
                            });
  std::vector<ScoredEndpoint> picked;
  for (size_t i = 0; i < count; ++i)
    picked.push_back(*ranked[i].candidate);
  return picked;
}

}  // namespace wideep::epp
