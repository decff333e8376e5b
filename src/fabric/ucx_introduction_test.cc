#include "fabric/ucx_introduction.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::fabric {
namespace {

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

const std::vector<RankId> kNode = {RankId{1}, RankId{3}};

UcxIntroduction example() {
  return {.address = bytes_of("worker"),
          .windows = {{.rank = RankId{1}, .base = 0x7000, .key = bytes_of("k1")},
                      {.rank = RankId{3}, .base = 0x9000, .key = bytes_of("key3")}}};
}

TEST(UcxIntroduction, SurvivesTheWire) {
  const auto parsed = parse_ucx_introduction(encode(example()), kNode);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  EXPECT_EQ(parsed->address, example().address);
  ASSERT_EQ(parsed->windows.size(), 2U);
  EXPECT_EQ(parsed->windows[1].rank, RankId{3});
  EXPECT_EQ(parsed->windows[1].base, 0x9000U);
  EXPECT_EQ(parsed->windows[1].key, bytes_of("key3"));
}

TEST(UcxIntroduction, IsRefusedCutOffOrWithMoreThanItSays) {
  const std::vector<std::byte> whole = encode(example());
  for (size_t n = 0; n < whole.size(); ++n)
    EXPECT_FALSE(parse_ucx_introduction(std::span(whole).first(n), kNode).has_value()) << n;
  std::vector<std::byte> longer = whole;
  longer.push_back({});
  EXPECT_FALSE(parse_ucx_introduction(longer, kNode).has_value());
}

TEST(UcxIntroduction, OfOtherRanksThanTheNodesIsRefused) {
  UcxIntroduction other = example();
  other.windows[1].rank = RankId{2};
  const auto refused = parse_ucx_introduction(encode(other), kNode);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message, testing::HasSubstr("rank 2"));
  other.windows[1].rank = RankId{1};
  EXPECT_FALSE(parse_ucx_introduction(encode(other), kNode).has_value());
  other.windows.pop_back();
  EXPECT_FALSE(parse_ucx_introduction(encode(other), kNode).has_value());
}

}  // namespace
}  // namespace wideep::fabric
