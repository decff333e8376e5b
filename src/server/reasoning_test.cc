#include "server/reasoning.h"

#include <gtest/gtest.h>

namespace wideep::server {
namespace {

using Start = ThinkSplitter::Start;

// "reasoning|content", checked for every way of cutting the text in two and into single bytes.
std::string split(Start start, std::string_view text) {
  const auto run = [&](size_t first, size_t piece) {
    ThinkSplitter splitter(start);
    SplitText all;
    const auto add = [&](const SplitText& part) {
      all.reasoning += part.reasoning;
      all.content += part.content;
    };
    add(splitter.push(text.substr(0, first)));
    for (size_t at = first; at < text.size(); at += piece)
      add(splitter.push(text.substr(at, piece)));
    add(splitter.finish());
    return all.reasoning + "|" + all.content;
  };
  const std::string whole = run(text.size(), 1);
  for (size_t first = 0; first < text.size(); ++first) {
    EXPECT_EQ(run(first, text.size()), whole);
    EXPECT_EQ(run(first, 1), whole);
  }
  return whole;
}

TEST(ThinkSplitter, PartsAtTheClosingTagHoweverItIsCut) {
  EXPECT_EQ(split(Start::kReasoning, "\nbecause\nso\n</think>\n\nYes.\n"), "because\nso|Yes.\n");
  EXPECT_EQ(split(Start::kReasoning, "a</think>b</think>c"), "a|b</think>c");
  EXPECT_EQ(split(Start::kReasoning, "a </thin k> < </thi</think>"), "a </thin k> < </thi|");
}

TEST(ThinkSplitter, SeesWhetherTheModelOpensTheTagItself) {
  EXPECT_EQ(split(Start::kUnknown, "<think>\na\n</think>\nb"), "a|b");
  EXPECT_EQ(split(Start::kUnknown, "\n<think>a</think>b"), "a|b");
  EXPECT_EQ(split(Start::kUnknown, "no <think>a</think>b"), "|no <think>a</think>b");
  EXPECT_EQ(split(Start::kUnknown, "<thin"), "|<thin");
  EXPECT_EQ(split(Start::kUnknown, "<<think>"), "|<<think>");
}

TEST(ThinkSplitter, LeavesContentAlone) {
  EXPECT_EQ(split(Start::kContent, "<think>a</think>\nb"), "|<think>a</think>\nb");
}

TEST(ThinkSplitter, ThinkingThatNeverEndsIsAllReasoning) {
  EXPECT_EQ(split(Start::kReasoning, "so\n\n</thi"), "so\n\n</thi|");
}

TEST(ThinkSplitter, HoldsBackOnlyWhatCouldBeATag) {
  ThinkSplitter splitter(Start::kReasoning);
  EXPECT_EQ(splitter.push("a b").reasoning, "a b");
  EXPECT_EQ(splitter.push("\n<").reasoning, "");
  EXPECT_EQ(splitter.push("x").reasoning, "\n<x");
  EXPECT_TRUE(splitter.in_reasoning());
  splitter.push("</think>");
  EXPECT_FALSE(splitter.in_reasoning());
  EXPECT_EQ(splitter.push("<").content, "<");
}

TEST(ThinkSplitter, ReadsThePromptsEnd) {
  EXPECT_EQ(ThinkSplitter::start_after("x<think>\n"), Start::kReasoning);
  EXPECT_EQ(ThinkSplitter::start_after("<think>\n\n</think>\n\n"), Start::kContent);
  EXPECT_EQ(ThinkSplitter::start_after("Assistant:"), Start::kUnknown);
}

}  // namespace
}  // namespace wideep::server
