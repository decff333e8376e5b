#include "cmd/quality.h"

#include <gtest/gtest.h>

namespace wideep::cmd {
namespace {

TEST(EditSimilarity, CountsCharactersNotBytesAndFoldsWhiteSpace) {
  EXPECT_DOUBLE_EQ(edit_similarity("a  b\n", "a b"), 1);
  EXPECT_DOUBLE_EQ(edit_similarity("abcd", "abxd"), 0.75);
  EXPECT_DOUBLE_EQ(edit_similarity("\xC3\xA9", "e"), 0);
  EXPECT_DOUBLE_EQ(edit_similarity("", ""), 1);
  EXPECT_DOUBLE_EQ(edit_similarity("abc", ""), 0);
}

TEST(Questions, ReadSetsAndRefuseOthers) {
  const auto sets =
      parse_questions(R"({"about":"x","trained":[{"id":"1","question":"q","answer":"a"}]})");
  ASSERT_TRUE(sets);
  EXPECT_EQ(sets->front().name, "trained");
  EXPECT_EQ(sets->front().questions.front().answer, "a");
  EXPECT_FALSE(parse_questions("{}"));
  EXPECT_FALSE(parse_questions("[]"));
  EXPECT_FALSE(parse_questions(R"({"x":[{"question":"q"}]})"));
}

}  // namespace
}  // namespace wideep::cmd
