#include "covering.h"

#include <gtest/gtest.h>

#include <set>

namespace wideep::matrix {
namespace {

constexpr int kSizes[] = {5, 3, 4, 4, 3, 3, 3, 4, 2, 2, 2};

TEST(CoveringRows, HaveEveryPair) {
  const auto rows = covering_rows(kSizes, 2);
  EXPECT_GE(rows.size(), 20U);  // the two largest dimensions alone
  EXPECT_LE(rows.size(), 40U);
  for (size_t a = 0; a < std::size(kSizes); ++a)
    for (size_t b = a + 1; b < std::size(kSizes); ++b) {
      std::set<std::pair<int, int>> seen;
      for (const Row& row : rows)
        seen.emplace(row[a], row[b]);
      EXPECT_EQ(seen.size(), static_cast<size_t>(kSizes[a] * kSizes[b])) << a << " " << b;
    }
}

TEST(CoveringRows, HaveEveryTriple) {
  const auto rows = covering_rows(kSizes, 3);
  std::set<std::vector<int>> seen;
  for (const Row& row : rows)
    for (int a = 0; a < 11; ++a)
      for (int b = a + 1; b < 11; ++b)
        for (int c = b + 1; c < 11; ++c)
          seen.insert({a, b, c, row[a], row[b], row[c]});
  size_t wanted = 0;
  for (int a = 0; a < 11; ++a)
    for (int b = a + 1; b < 11; ++b)
      for (int c = b + 1; c < 11; ++c)
        wanted += static_cast<size_t>(kSizes[a] * kSizes[b] * kSizes[c]);
  EXPECT_EQ(seen.size(), wanted);
  EXPECT_LE(rows.size(), 250U);
}

TEST(CoveringRows, HaveOnlyValuesThatExist) {
  for (const Row& row : covering_rows(kSizes, 2)) {
    ASSERT_EQ(row.size(), std::size(kSizes));
    for (size_t i = 0; i < row.size(); ++i) {
      EXPECT_GE(row[i], 0);
      EXPECT_LT(row[i], kSizes[i]);
    }
  }
}

TEST(CoveringRows, AreTheSameEveryTime) {
  EXPECT_EQ(covering_rows(kSizes, 2), covering_rows(kSizes, 2));
}

}  // namespace
}  // namespace wideep::matrix
