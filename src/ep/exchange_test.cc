#include "ep/exchange.h"

#include "fabric/sim.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace wideep::ep {
namespace {

using std::chrono::seconds;

TEST(AwaitAll, NamesTheRankWhoseWordIsWrong) {
  const fabric::Shape shape{.node_of = std::vector<NodeId>(3), .num_channels = 1};
  const auto report = fabric::simulate(shape, {}, [&](fabric::Fabric& fabric) {
    const auto op = [] { return std::string("a test"); };
    const auto has_come = [](RankId rank) -> Result<bool> {
      if (rank == RankId{1}) return error(ErrorCode::kDataLoss, "sent nonsense");
      return true;
    };
    return await_all(fabric, op, fabric.clock().now() + seconds{1}, has_come);
  });
  ASSERT_FALSE(report.status[0].has_value());
  EXPECT_EQ(report.status[0].error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(report.status[0].error().message, "rank 1: sent nonsense");
}

TEST(AwaitAll, ATimeoutNamesAllThatAreMissing) {
  const fabric::Shape shape{.node_of = std::vector<NodeId>(4), .num_channels = 1};
  const auto report = fabric::simulate(shape, {}, [&](fabric::Fabric& fabric) {
    const auto op = [] { return std::string("a test"); };
    const auto has_come = [](RankId rank) -> Result<bool> { return index(rank) % 2 == 0; };
    return await_all(fabric, op, fabric.clock().now() + seconds{1}, has_come);
  });
  EXPECT_THAT(
      report.status[0].error().message,
      testing::AllOf(testing::HasSubstr("a test"), testing::HasSubstr("rank 1"),
                     testing::HasSubstr("rank 3"), testing::Not(testing::HasSubstr("rank 2"))));
}

}  // namespace
}  // namespace wideep::ep
