#include "tokenizer/text_stream.h"

#include "base/random.h"
#include "base/utf8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace wideep::tokenizer {
namespace {

using testing::HasSubstr;

TextStream make(std::vector<std::string> stop = {}, bool include_stop = false) {
  return TextStream::create({std::move(stop), include_stop}).value();
}

// What the whole stream must show: the text up to the stop that is complete first.
std::string reference(std::string_view bytes,
                      const std::vector<std::string>& stops,
                      bool include_stop) {
  const std::string text = sanitize_utf8(bytes);
  size_t best_end = std::string::npos;
  size_t best_size = 0;
  for (const std::string& stop : stops) {
    const size_t begin = text.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end < best_end || (end == best_end && stop.size() > best_size)) {
      best_end = end;
      best_size = stop.size();
    }
  }
  if (best_end == std::string::npos) return text;
  return text.substr(0, include_stop ? best_end : best_end - best_size);
}

TEST(TextStream, ShowsTextAtOnceWhenNothingIsOpen) {
  TextStream stream = make({"stop"});
  EXPECT_EQ(stream.push("hello"), "hello");
  EXPECT_EQ(stream.push(""), "");
  EXPECT_EQ(stream.finish(), "");
}

TEST(TextStream, HoldsAnUnfinishedCharacterUntilItIsWhole) {
  TextStream stream = make();
  EXPECT_EQ(stream.push("a\xF0"), "a");
  EXPECT_EQ(stream.push("\x9F"), "");
  EXPECT_EQ(stream.push("\x98"), "");
  EXPECT_EQ(stream.push("\x80z"), "\U0001F600z");
}

TEST(TextStream, ReplacesBytesWhenAFollowingOneProvesThemWrong) {
  TextStream stream = make();
  EXPECT_EQ(stream.push("\xE4\xB8"), "");
  EXPECT_EQ(stream.push("z"), "\uFFFDz");
  EXPECT_EQ(stream.push("\xFF"), "\uFFFD");
  EXPECT_EQ(stream.push("\xE4"), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
}

TEST(TextStream, HoldsWhatCouldBeginAStopString) {
  TextStream stream = make({"</end>"});
  EXPECT_EQ(stream.push("a</"), "a");
  EXPECT_EQ(stream.push("e"), "");
  EXPECT_EQ(stream.push("x<"), "</ex");
  EXPECT_EQ(stream.finish(), "<");
}

TEST(TextStream, CutsBeforeTheStopStringOrBehindIt) {
  for (const bool include : {false, true}) {
    TextStream stream = make({"END", "zzz"}, include);
    EXPECT_EQ(stream.push("one E"), "one ");
    EXPECT_EQ(stream.push("ND two"), include ? "END" : "");
    ASSERT_TRUE(stream.stopped().has_value());
    EXPECT_EQ(stream.stopped()->index, 0U);
    EXPECT_EQ(stream.stopped()->text, "END");
    EXPECT_EQ(stream.push("more"), "");
    EXPECT_EQ(stream.finish(), "");
  }
}

TEST(TextStream, TakesTheStopThatIsCompleteFirstThenTheLongest) {
  TextStream stream = make({"cd", "bcd", "abcde"});
  EXPECT_EQ(stream.push("xabcdef"), "xa");
  EXPECT_EQ(stream.stopped()->index, 1U);
}

TEST(TextStream, FindsAStopThatOverlapsAFailedBeginning) {
  TextStream stream = make({"aab"});
  EXPECT_EQ(stream.push("aa"), "");
  EXPECT_EQ(stream.push("a"), "a");
  EXPECT_EQ(stream.push("b"), "");
  EXPECT_TRUE(stream.stopped().has_value());
}

TEST(TextStream, LooksForNoStopUntilToldTo) {
  TextStream stream = make({"ab"});
  EXPECT_EQ(stream.push("ab a", TextStream::Stops::kIgnore), "ab a");
  EXPECT_EQ(stream.push("b ab"), "b ");  // the first "ab" began where stops were ignored
  EXPECT_TRUE(stream.stopped().has_value());
}

TEST(TextStream, KeepsSplitCharactersInsideStops) {
  TextStream stream = make({"\u4E2D\u6587"});
  EXPECT_EQ(stream.push("x\xE4\xB8"), "x");
  EXPECT_EQ(stream.push("\xAD"), "");
  EXPECT_EQ(stream.push("\xE6\x96\x87!"), "");
  EXPECT_EQ(stream.stopped()->text, "\u4E2D\u6587");
}

TEST(TextStream, GivesTheSameTextHoweverTheBytesAreCut) {
  Random random(11);
  const std::vector<std::string> atoms = {"a",          "b",      "ab",       "\u00E4",
                                          "\U0001F600", "\xE4",   "\xE4\xB8", "\x80",
                                          "\xF0\x9F",   "\uFFFD", "\xC0"};
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (uint64_t i = random.below(20); i > 0; --i)
      bytes += atoms[random.below(atoms.size())];
    const std::vector<std::string> stops = {"abab", "ba\u00E4", "\uFFFDa", "bb"};
    const bool include = random.below(2) == 0;
    TextStream stream = make(stops, include);
    std::string shown;
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = 1 + random.below(4);
      shown += stream.push(std::string_view(bytes).substr(at, size));
      ASSERT_TRUE(is_valid_utf8(shown));
      at += size;
    }
    shown += stream.finish();
    ASSERT_EQ(shown, reference(bytes, stops, include)) << "round " << round;
  }
}

TEST(TextStream, ResumesAtEveryTokenWithTheSameStateAndText) {
  const std::vector<std::string> tokens = {"Hel",        "lo \xE4",  "\xB8\xAD <", "/en", "d",
                                           "> \xF0\x9F", "\x98\x80", "</e",        "nd>", "after"};
  TextStream whole = make({"</end>!", "</end>"});
  std::vector<std::string> pieces;
  for (const std::string& token : tokens)
    pieces.push_back(whole.push(token));
  for (size_t cut = 0; cut <= tokens.size(); ++cut) {
    TextStream first = make({"</end>!", "</end>"});
    TextStream second = make({"</end>!", "</end>"});
    for (size_t i = 0; i < cut; ++i)
      EXPECT_EQ(first.push(tokens[i]), pieces[i]);
    // A resumed request feeds the generated prefix again, here in one piece.
    std::string prefix;
    for (size_t i = 0; i < cut; ++i)
      prefix += tokens[i];
    second.push(prefix);
    EXPECT_EQ(first, second) << cut;
    for (size_t i = cut; i < tokens.size(); ++i)
      EXPECT_EQ(second.push(tokens[i]), pieces[i]) << cut;
    EXPECT_EQ(second, whole);
  }
}

TEST(TextStream, RefusesStopsBeyondItsLimits) {
  EXPECT_THAT(TextStream::create({std::vector<std::string>(17, "x")}).error().message,
              HasSubstr("17 stop strings, at most 16"));
  EXPECT_THAT(TextStream::create({{"ok", std::string(257, 'x')}}).error().message,
              HasSubstr("stop string 1 has 257 bytes"));
  EXPECT_THAT(TextStream::create({{""}}).error().message, HasSubstr("0 bytes"));
  EXPECT_THAT(TextStream::create({{"\xFF"}}).error().message, HasSubstr("not valid UTF-8"));
  EXPECT_TRUE(
      TextStream::create({std::vector<std::string>(16, std::string(256, 'x'))}).has_value());
}

}  // namespace
}  // namespace wideep::tokenizer
