#include "covering.h"

#include "base/check.h"
#include "base/random.h"

#include <algorithm>
#include <numeric>

namespace wideep::matrix {
namespace {

// The combinations of values of some dimensions, and which of them have occurred.
struct Combination {
  std::vector<size_t> dimensions;
  std::vector<bool> covered;
};

std::vector<Combination> combinations(std::span<const int> num_values, int strength) {
  std::vector<Combination> all;
  std::vector<size_t> chosen;
  const auto choose = [&](auto&& self, size_t first) -> void {
    if (static_cast<int>(chosen.size()) == strength) {
      size_t size = 1;
      for (const size_t dimension : chosen)
        size *= static_cast<size_t>(num_values[dimension]);
      all.push_back({chosen, std::vector<bool>(size)});
      return;
    }
    for (size_t dimension = first; dimension < num_values.size(); ++dimension) {
      chosen.push_back(dimension);
      self(self, dimension + 1);
      chosen.pop_back();
    }
  };
  choose(choose, 0);
  return all;
}

// Place of the row's values in `covered`; nothing if a dimension has no value yet (-1).
int64_t place(const Combination& combination, const Row& row, std::span<const int> num_values) {
  int64_t at = 0;
  for (const size_t dimension : combination.dimensions) {
    if (row[dimension] < 0) return -1;
    at = at * num_values[dimension] + row[dimension];
  }
  return at;
}

int num_new(std::span<const Combination> all, const Row& row, std::span<const int> num_values) {
  int count = 0;
  for (const Combination& combination : all) {
    const int64_t at = place(combination, row, num_values);
    if (at >= 0 && !combination.covered[static_cast<size_t>(at)]) ++count;
  }
  return count;
}

// Fills the dimensions in random order, each with the value that covers most.
Row greedy_row(std::span<const Combination> all,
               Row row,
               std::span<const int> num_values,
               Random& random) {
  std::vector<size_t> order(num_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random.below(i)]);
  for (const size_t dimension : order) {
    if (row[dimension] >= 0) continue;
    int best_count = -1;
    Row best;
    const auto first = static_cast<int>(random.below(static_cast<uint64_t>(num_values[dimension])));
    for (int i = 0; i < num_values[dimension]; ++i) {
      row[dimension] = (first + i) % num_values[dimension];
      const int count = num_new(all, row, num_values);
      if (count > best_count) {
        best_count = count;
        best = row;
      }
    }
    row = best;
  }
  return row;
}

// A row that has at least the first combination that has not occurred yet.
bool seed_row(std::span<const Combination> all, std::span<const int> num_values, Row& row) {
  for (const Combination& combination : all) {
    const auto missing = std::ranges::find(combination.covered, false);
    if (missing == combination.covered.end()) continue;
    auto at = missing - combination.covered.begin();
    for (size_t i = combination.dimensions.size(); i-- > 0;) {
      const size_t dimension = combination.dimensions[i];
      row[dimension] = static_cast<int>(at % num_values[dimension]);
      at /= num_values[dimension];
    }
    return true;
  }
  return false;
}

}  // namespace

std::vector<Row> covering_rows(std::span<const int> num_values, int strength, uint64_t seed) {
  WD_CHECK(strength == 2 || strength == 3);
  WD_CHECK(static_cast<size_t>(strength) <= num_values.size());
  constexpr int kCandidates = 20;
  Random random(seed);
  std::vector<Combination> all = combinations(num_values, strength);
  std::vector<Row> rows;
  for (Row seeded(num_values.size(), -1); seed_row(all, num_values, seeded);
       seeded.assign(num_values.size(), -1)) {
    Row best;
    int best_count = -1;
    for (int candidate = 0; candidate < kCandidates; ++candidate) {
      const Row row = greedy_row(all, seeded, num_values, random);
      const int count = num_new(all, row, num_values);
      if (count > best_count) {
        best_count = count;
        best = row;
      }
    }
    for (Combination& combination : all)
      combination.covered[static_cast<size_t>(place(combination, best, num_values))] = true;
    rows.push_back(best);
  }
  return rows;
}

}  // namespace wideep::matrix
