#include "tokenizer/added_tokens.h"

#include "base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace wideep::tokenizer {
namespace {

using testing::ElementsAre;

AddedToken token(int id, std::string content, bool control = true) {
  AddedToken result;
  result.id = TokenId{id};
  result.content = std::move(content);
  result.control = control;
  return result;
}

// "plain" or "#id" for each part.
std::vector<std::string> parts(const AddedTokenMatcher& matcher,
                               std::string_view text,
                               const TrustMap& trust) {
  std::vector<std::string> out;
  matcher.split(text, {trust}, [&](const AddedTokenMatcher::Part& part) {
    out.push_back(part.token ? "#" + std::to_string(index(*part.token))
                             : std::string(text.substr(part.begin, part.end - part.begin)));
  });
  return out;
}

TrustMap trusted(size_t bytes) {
  TrustMap map;
  map.append(bytes, true);
  return map;
}

TEST(AddedTokens, AreControlWhenSpecialOrMarkup) {
  const Json list = parse_json(R"([{"id":1,"content":"</s>"},{"id":2,"content":"[INST]"},
      {"id":3,"content":"x","special":true},{"id":4,"content":"   "},{"id":5,"content":"<>"}])")
                        .value();
  const auto tokens = read_added_tokens(&list, {}).value();
  std::vector<bool> control;
  for (const AddedToken& each : tokens)
    control.push_back(each.control);
  EXPECT_THAT(control, ElementsAre(true, true, true, false, false));
  EXPECT_FALSE(tokens[2].normalized);  // special tokens are sought in the raw text by default
  EXPECT_TRUE(tokens[3].normalized);
  EXPECT_TRUE(read_added_tokens(nullptr, {}).value().empty());
  const Json wrong("x");
  EXPECT_FALSE(read_added_tokens(&wrong, {}).has_value());
}

TEST(AddedTokens, CoverTheTextWithPartsInOrder) {
  AddedTokenMatcher matcher;
  matcher.add("ab", token(1, "ab"));
  matcher.add("abcd", token(2, "abcd"));
  EXPECT_THAT(parts(matcher, "xabcabcdab", trusted(10)), ElementsAre("x", "#1", "c", "#2", "#1"));
  EXPECT_THAT(parts(AddedTokenMatcher(), "abc", trusted(3)), ElementsAre("abc"));
  EXPECT_THAT(parts(matcher, "", trusted(0)), ElementsAre());
}

TEST(AddedTokens, GiveWhiteSpaceToOneNeighbourOnly) {
  AddedTokenMatcher matcher;
  AddedToken greedy = token(1, "<g>");
  greedy.lstrip = greedy.rstrip = true;
  matcher.add("<g>", greedy);
  const std::string text = "a  <g> \n <g>  b";
  EXPECT_THAT(parts(matcher, text, trusted(text.size())), ElementsAre("a", "#1", "#1", "b"));
}

TEST(TrustMap, KnowsWhichRangesAreTrustedThroughout) {
  TrustMap map;
  map.append(3, true);
  map.append(0, false);
  map.append(2, true);
  map.append(4, false);
  EXPECT_TRUE(map.is_trusted(0, 5));
  EXPECT_FALSE(map.is_trusted(4, 6));
  EXPECT_FALSE(map.is_trusted(5, 6));
  EXPECT_FALSE(map.is_trusted(9, 10));
  EXPECT_EQ(map.run_end(1), 5U);
  EXPECT_EQ(map.run_end(5), 9U);
  EXPECT_EQ(map.run_end(9), SIZE_MAX);
}

}  // namespace
}  // namespace wideep::tokenizer
