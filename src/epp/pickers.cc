#include "epp/pickers.h"

#include "base/random.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace wideep::epp {
namespace {

void shuffle(std::vector<ScoredEndpoint>& items, Random& random) {
  for (size_t i = items.size(); i > 1; --i)
    std::swap(items[i - 1], items[random.below(i)]);
}

std::vector<ScoredEndpoint> first(std::vector<ScoredEndpoint> items, size_t count) {
  if (items.size() > count) items.resize(count);
  return items;
}

}  // namespace

std::vector<ScoredEndpoint> MaxScorePicker::pick(PickContext& context,
                                                 std::vector<ScoredEndpoint> candidates) {
  Random random(context.request.random);
  shuffle(candidates, random);
  std::ranges::stable_sort(candidates, std::greater<>{}, &ScoredEndpoint::score);
  return first(std::move(candidates), endpoints_max_);
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
  Random random(context.request.random);
  shuffle(candidates, random);
  return first(std::move(candidates), endpoints_max_);
}

}  // namespace wideep::epp
