#include "base/yaml.h"

#include <gtest/gtest.h>

namespace wideep {
namespace {

TEST(Yaml, GivesScalarsTheirTypes) {
  const auto document = parse_yaml("a: 1\nb: \"1\"\nc: [true, 0.5, ~, x y]\n");
  ASSERT_TRUE(document) << document.error().message;
  EXPECT_EQ(document->dump(), R"({"a":1,"b":"1","c":[true,0.5,null,"x y"]})");
}

TEST(Yaml, RefusesDuplicateKeysAndBrokenText) {
  EXPECT_FALSE(parse_yaml("a: 1\na: 2\n"));
  EXPECT_FALSE(parse_yaml("a: [1"));
}

TEST(Yaml, KnowsTheLineOfEachMemberAndItem) {
  YamlLines lines;
  ASSERT_TRUE(parse_yaml("a:\n  b: 1\n  c:\n  - d: 2\n  - e: 3\n", &lines));
  EXPECT_EQ(lines, (YamlLines{{"a", 1},
                              {"a.b", 2},
                              {"a.c", 3},
                              {"a.c[0]", 4},
                              {"a.c[0].d", 4},
                              {"a.c[1]", 5},
                              {"a.c[1].e", 5}}));
}

TEST(Yaml, StopsAliasBombs) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 8; ++i) {
    text += fmt::format("a{}: &a{} [", i, i);
    for (int j = 0; j < 10; ++j)
      text += fmt::format("*a{},", i - 1);
    text += "]\n";
  }
  EXPECT_FALSE(parse_yaml(text));
}

}  // namespace
}  // namespace wideep
