#include "epp/pickers.h"

#include "base/random.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace wideep::epp {
namespace {

std::vector<ScoredEndpoint> first(std::vector<ScoredEndpoint> items, size_t count) {
  if (items.size() > count) items.resize(count);
  return items;
}

// The first `count` of `items` after a random shuffle and a stable sort by `score`, descending,
// without doing either: each item draws a number, and ties fall by it.
template <typename Score>
std::vector<ScoredEndpoint> highest(std::span<const ScoredEndpoint> items,
                                    size_t count,
                                    uint64_t seed,
                                    Score score) {
  struct Ranked {
    double score;
    uint64_t draw;
    size_t item;
  };

  std::vector<Ranked> ranked;
  ranked.reserve(items.size());
  for (size_t i = 0; i < items.size(); ++i)
    ranked.push_back({score(items[i]), random_bits(seed, i), i});
  count = std::min(count, ranked.size());
  std::ranges::partial_sort(ranked, ranked.begin() + static_cast<std::ptrdiff_t>(count),
                            [](const Ranked& a, const Ranked& b) {
                              return a.score != b.score ? a.score > b.score : a.draw > b.draw;
                            });
  std::vector<ScoredEndpoint> picked;
  for (size_t i = 0; i < count; ++i)
    picked.push_back(items[ranked[i].item]);
  return picked;
}

}  // namespace

std::vector<ScoredEndpoint> MaxScorePicker::pick(PickContext& context,
                                                 std::vector<ScoredEndpoint> candidates) {
  return highest(candidates, endpoints_max_, context.request.random,
                 [](const ScoredEndpoint& candidate) { return candidate.score; });
}

std::vector<ScoredEndpoint> WeightedRandomPicker::pick(PickContext& context,
                                                       std::vector<ScoredEndpoint> candidates) {
  Random random(context.request.random);
  const bool all_zero =
      std::ranges::all_of(candidates, [](const ScoredEndpoint& c) { return c.score <= 0; });
  std::vector<std::pair<double, ScoredEndpoint>> keyed;
  for (const ScoredEndpoint& candidate : candidates) {
    const double weight = all_zero ? 1 : candidate.score;
    if (weight <= 0) continue;
    // log of U^(1/score): the same order, without underflow.
    keyed.emplace_back(
        std::log(std::max(random.uniform(), std::numeric_limits<double>::min())) / weight,
        candidate);
  }
  std::ranges::sort(keyed, std::greater<>{}, [](const auto& item) { return item.first; });
  std::vector<ScoredEndpoint> picked;
  for (const auto& [key, candidate] : keyed)
    picked.push_back(candidate);
  return first(std::move(picked), endpoints_max_);
}

std::vector<ScoredEndpoint> RandomPicker::pick(PickContext& context,
                                               std::vector<ScoredEndpoint> candidates) {
  return highest(candidates, endpoints_max_, context.request.random,
                 [](const ScoredEndpoint&) { return 0.0; });
}

}  // namespace wideep::epp
