#include "tokenizer/number_tokenizer.h"

#include <gtest/gtest.h>

#include <vector>

namespace wideep::tokenizer {
namespace {

TEST(NumberTokenizer, ShowsTokensAsTheirNumbers) {
  const auto tokenizer = number_tokenizer(300);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->token_bytes(TokenId{0}), " 0");
  EXPECT_EQ((*tokenizer)->token_bytes(TokenId{299}), " 299");
}

TEST(NumberTokenizer, TurnsTextIntoIdsBeyondTheVocabulary) {
  const auto tokenizer = number_tokenizer(300);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto tokens = (*tokenizer)->encode("a\xC3\xA9\n");
  ASSERT_TRUE(tokens) << tokens.error().message;
  EXPECT_EQ(*tokens, (std::vector<TokenId>{TokenId{300 + 'a'}, TokenId{300 + 0xC3},
                                           TokenId{300 + 0xA9}, TokenId{300 + '\n'}}));
}

}  // namespace
}  // namespace wideep::tokenizer
