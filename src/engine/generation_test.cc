#include "engine/generation.h"

#include "engine/test_engine.h"

#include <gtest/gtest.h>

namespace wideep::engine {
namespace {

std::vector<TokenId> bytes(std::string_view text) {
  std::vector<TokenId> tokens;
  for (const char c : text)
    tokens.push_back(TokenId{static_cast<unsigned char>(c)});
  return tokens;
}

struct Fed {
  Outcome outcome;
  std::unique_ptr<Sequence> sequence;
  std::unique_ptr<Generation> generation;

  explicit Fed(Request request, std::span<const TokenId> end_tokens = {}) {
    request.prompt_tokens = bytes("?");
    auto created = Generation::create(
        std::make_unique<Sequence>(SequenceId{1}, std::move(request), 1000,
                                   BlockNaming{api::block_hash_root("m", "n", "")}),
        &byte_tokenizer(), end_tokens, [this](const RequestEvent& event) { outcome.add(event); });
    EXPECT_TRUE(created) << created.error().message;
    generation = *std::move(created);
    sequence = generation->take_sequence();
  }

  // Feeds tokens until the request ends; returns what was shown.
  std::string feed(std::string_view text) {
    for (const TokenId token : bytes(text))
      if (generation->accept({.token = token}, TimePoint{})) break;
    return outcome.text;
  }
};

TEST(Generation, HoldsBackHalfACharacterAndHalfAStopString) {
  Fed fed({.stop = {.stop_strings = {"END"}}});
  EXPECT_EQ(fed.feed("a\xC3"), "a");
  EXPECT_EQ(fed.feed("\xA4"), "a\xC3\xA4");
  EXPECT_EQ(fed.feed("E"), "a\xC3\xA4");
  EXPECT_EQ(fed.feed("N"), "a\xC3\xA4");
  EXPECT_EQ(fed.feed("x"),
            "a\xC3\xA4"
            "ENx");
}

TEST(Generation, ShowsWhatItHeldBackWhenTheLengthIsReached) {
  Fed fed({.stop = {.max_tokens = 3, .stop_strings = {"END"}}});
  EXPECT_EQ(fed.feed("aEN"), "aEN");
  EXPECT_EQ(fed.outcome.finish, FinishReason::kLength);
}

TEST(Generation, PrefersAStopStringToTheLength) {
  Fed fed({.stop = {.max_tokens = 4, .stop_strings = {"END"}}});
  EXPECT_EQ(fed.feed("aEND"), "a");
  EXPECT_EQ(fed.outcome.finish, FinishReason::kStop);
  EXPECT_EQ(fed.outcome.last.stop_reason, "END");
}

TEST(Generation, LeavesAStopTokenOutOfTheText) {
  Fed hidden({.stop = {.stop_tokens = bytes("!")}});
  EXPECT_EQ(hidden.feed("ab!c"), "ab");
  EXPECT_EQ(hidden.outcome.last.stop_token, TokenId{'!'});
  Fed shown({.stop = {.stop_tokens = bytes("!"), .include_stop_string = true}});
  EXPECT_EQ(shown.feed("ab!c"), "ab!");
}

TEST(Generation, IgnoresStopsBeforeMinTokens) {
  const std::vector end = bytes(".");
  Fed fed({.stop = {.min_tokens = 5, .stop_tokens = bytes("!")}}, end);
  EXPECT_EQ(fed.generation->next().banned.size(), 2U);
  EXPECT_EQ(fed.feed("!.!"), "!.!");
  EXPECT_EQ(fed.generation->next().banned.size(), 2U);
  EXPECT_EQ(fed.feed("a"), "!.!a");
  EXPECT_EQ(fed.generation->next().banned.size(), 2U);  // the fifth must not end it
  EXPECT_EQ(fed.feed("b"), "!.!ab");
  EXPECT_TRUE(fed.generation->next().banned.empty());
  EXPECT_EQ(fed.feed("."), "!.!ab");
  EXPECT_EQ(fed.outcome.finish, FinishReason::kStop);
}

TEST(Generation, GoesOnBehindAPrefixAsIfItHadNotBeenCut) {
  const std::string text = "x\xC3\xA4 EN\xE2\x82\xAC ENDED";
  Request request{.stop = {.max_tokens = 100, .stop_strings = {"END"}}};
  Fed whole(request);
  whole.feed(text);
  ASSERT_EQ(whole.outcome.finish, FinishReason::kStop);
  for (size_t cut = 0; cut + 2 < text.size(); ++cut) {
    SCOPED_TRACE(cut);
    std::string shown;
    for (size_t i = 0; i < cut; ++i)
      shown += whole.outcome.texts[i];
    Request resumed = request;
    resumed.generated_prefix = bytes(text.substr(0, cut));
    Fed rest(resumed);
    EXPECT_EQ(rest.generation->next().position, static_cast<int64_t>(cut));
    EXPECT_EQ(shown + rest.feed(text.substr(cut)), whole.outcome.text);
    EXPECT_EQ(rest.outcome.finish, FinishReason::kStop);
    EXPECT_EQ(rest.outcome.last.usage.generated_tokens, whole.outcome.last.usage.generated_tokens);
  }
}

TEST(Generation, KnowsAPrefixThatHasReachedItsEnd) {
  Request request{.stop = {.stop_strings = {"END"}}};
  request.generated_prefix = bytes("aEND");
  Fed fed(request);
  EXPECT_EQ(fed.generation->ended(), FinishReason::kStop);
  fed.generation->end(*fed.generation->ended());
  EXPECT_EQ(fed.outcome.text, "");
  EXPECT_EQ(fed.outcome.finish, FinishReason::kStop);
}

}  // namespace
}  // namespace wideep::engine
