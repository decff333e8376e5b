#include "ep/control_words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::ep {
namespace {

const ExchangeId kId{.seq = 0, .layer = LayerId{3}, .program = 77};  // just after the wrap

TEST(ControlWords, ReadBackWhatWasWritten) {
  const auto dispatch = parse_dispatch(encode(kId, DispatchWord{.count = 5, .total = 9}), kId, 9);
  ASSERT_TRUE(dispatch.has_value());
  EXPECT_EQ((*dispatch)->count, 5);
  EXPECT_EQ((*dispatch)->total, 9);
  EXPECT_EQ((*parse_combine(encode(kId, CombineWord{9}), kId, 9))->count, 9);
  const StepWish wish{.num_tokens = 4, .has_work = true, .draft_depth = 2};
  const auto step = parse_step(encode(7, 1, wish), 7, 1, 4);
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ((*step)->num_tokens, 4);
  EXPECT_TRUE((*step)->has_work);
  EXPECT_EQ((*step)->draft_depth, 2);
}

TEST(ControlWords, AnOlderWordHasNotComeYetAlsoAcrossTheWrap) {
  ExchangeId before = kId;
  before.seq = UINT64_MAX;
  const auto stale = parse_dispatch(encode(before, DispatchWord{}), kId, 9);
  ASSERT_TRUE(stale.has_value());
  EXPECT_FALSE(stale->has_value());
  EXPECT_FALSE(parse_dispatch(std::nullopt, kId, 9)->has_value());
}

TEST(ControlWords, ALaterWordIsAnError) {
  ExchangeId later = kId;
  later.seq = 1;
  EXPECT_EQ(parse_combine(encode(later, CombineWord{}), kId, 9).error().code, ErrorCode::kDataLoss);
}

TEST(ControlWords, AnotherProgramOrLayerIsAnErrorThatNamesBoth) {
  ExchangeId other = kId;
  other.layer = LayerId{4};
  EXPECT_THAT(parse_dispatch(encode(other, DispatchWord{}), kId, 9).error().message,
              testing::AllOf(testing::HasSubstr("layer 4"), testing::HasSubstr("layer 3")));
  other = kId;
  other.program = 78;
  EXPECT_THAT(parse_combine(encode(other, CombineWord{}), kId, 9).error().message,
              testing::AllOf(testing::HasSubstr("000000000000004e"),
                             testing::HasSubstr("000000000000004d")));
  EXPECT_FALSE(parse_step(encode(7, 2, {}), 7, 1, 4).has_value());
}

TEST(ControlWords, CountsThatCannotBeAreErrors) {
  EXPECT_FALSE(parse_dispatch(encode(kId, DispatchWord{.count = 0, .total = 10}), kId, 9));
  EXPECT_FALSE(parse_dispatch(encode(kId, DispatchWord{.count = 6, .total = 5}), kId, 9));
  EXPECT_FALSE(parse_dispatch(encode(kId, DispatchWord{.count = -1, .total = 5}), kId, 9));
  EXPECT_FALSE(parse_combine(encode(kId, CombineWord{10}), kId, 9));
  EXPECT_FALSE(parse_step(encode(7, 1, {.num_tokens = 5}), 7, 1, 4));
  EXPECT_FALSE(parse_step(encode(7, 1, {.draft_depth = -1}), 7, 1, 4));
}

TEST(ControlWords, EntriesOutOfRangeAreErrors) {
  const EntryLimits limits{.tokens_max = 4, .num_slots = 2, .top_k = 3};
  EXPECT_TRUE(check({.token = 3, .slot = 1, .k = 2}, limits).has_value());
  EXPECT_FALSE(check({.token = 4, .slot = 1, .k = 2}, limits).has_value());
  EXPECT_FALSE(check({.token = 3, .slot = 2, .k = 2}, limits).has_value());
  EXPECT_FALSE(check({.token = 3, .slot = 1, .k = 3}, limits).has_value());
}

}  // namespace
}  // namespace wideep::ep
