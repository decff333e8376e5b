#include "base/parameters.h"

#include <gtest/gtest.h>

namespace wideep {
namespace {

// The document's mistake as finish() tells it, after `read` has asked.
template <typename Read>
std::string mistake(std::string_view yaml, Read read) {
  YamlLines lines;
  const auto document = parse_yaml(yaml, &lines);
  EXPECT_TRUE(document) << document.error().message;
  Parameters parameters("", &*document, &lines);
  read(parameters);
  const Status done = parameters.finish();
  return done ? "" : done.error().message;
}

TEST(Parameters, GivesMembersOrTheirFallbacks) {
  EXPECT_EQ(mistake("a: 1\nb: text\nc: true\nd: 0.5\n",
                    [](Parameters& p) {
                      EXPECT_EQ(p.integer("a", 7), 1);
                      EXPECT_EQ(p.text("b", ""), "text");
                      EXPECT_TRUE(p.boolean("c", false));
                      EXPECT_EQ(p.number("d", 0), 0.5);
                      EXPECT_EQ(p.integer("e", 7), 7);
                      EXPECT_EQ(p.choice("f", "y", {"x", "y"}), "y");
                    }),
            "");
}

TEST(Parameters, NamesTheLineOfAMistakeAndTheNearestName) {
  const auto read = [](Parameters& p) {
    p.integer("ranks", 1, 1);
    p.choice("role", "decode", {"prefill", "decode"});
  };
  EXPECT_EQ(mistake("\nrank: 2\n", read),
            "line 2: unknown parameter 'rank'; did you mean 'ranks'?");
  EXPECT_EQ(mistake("ranks: 0\n", read), "line 1: ranks must be an integer >= 1");
  EXPECT_EQ(mistake("ranks: 1\nrole: both\n", read), "line 2: role must be one of prefill, decode");
}

}  // namespace
}  // namespace wideep
