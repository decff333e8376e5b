// Covering arrays: few rows in which everything that two (or three) settings can do together
// occurs.
//
// A dimension is a setting with so many values. A row has one value for each dimension. Of strength
// 2, every pair of values of any two dimensions occurs in some row: 11 dimensions of 2 to 5 values
// have 200,000 combinations and need about 30 rows. Most bugs of interaction need only a pair.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace wideep::matrix {

using Row = std::vector<int>;

// Deterministic. Strength 2 or 3, at most the number of dimensions.
std::vector<Row> covering_rows(std::span<const int> num_values, int strength, uint64_t seed = 1);

}  // namespace wideep::matrix
