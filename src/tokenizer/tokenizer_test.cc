#include "tokenizer/tokenizer.h"

#include "base/file.h"
#include "base/test_folder.h"
#include "base/utf8.h"
#include "tokenizer/small_tokenizer_test.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

namespace wideep::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int kHello = 259;    // "hello"
constexpr int kEnd = 300;      // <|end|>, special
constexpr int kThink = 301;    // <think>, not special
constexpr int kDoubleS = 302;  // "ß", part of the language

Json hello_file() {
  const Json model = small_model({{"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}});
  return small_tokenizer(model,
                         {added_token(kEnd, "<|end|>", true), added_token(kThink, "<think>", false),
                          added_token(kDoubleS, "ß", false)});
}

std::unique_ptr<Tokenizer> make(const Json& file, const Json& config = {}) {
  auto result = Tokenizer::from_json(file, config);
  EXPECT_TRUE(result.has_value()) << result.error().message;
  return result ? std::move(*result) : nullptr;
}

std::string refusal(const Json& file, const Json& config = {}) {
  const auto result = Tokenizer::from_json(file, config);
  return result ? "accepted" : result.error().message;
}

std::vector<int> encode(const Tokenizer& tokenizer,
                        std::string_view text,
                        const EncodeOptions& options = {}) {
  std::vector<int> out;
  for (const TokenId id : tokenizer.encode(text, options).value())
    out.push_back(index(id));
  return out;
}

std::vector<int> encode_chat(const Tokenizer& tokenizer, const std::vector<TextSegment>& segments) {
  std::vector<int> out;
  for (const TokenId id : tokenizer.encode_chat(segments).value())
    out.push_back(index(id));
  return out;
}

TEST(Tokenizer, MergesTheLowestRankFirst) {
  const auto tokenizer = make(hello_file());
  EXPECT_THAT(encode(*tokenizer, "hello"), ElementsAre(kHello));
  EXPECT_THAT(encode(*tokenizer, "hell he"), ElementsAre(258, ' ', 256));
  EXPECT_THAT(encode(*tokenizer, ""), ElementsAre());
}

TEST(Tokenizer, TakesControlTokensFromTrustedTextOnly) {
  const auto tokenizer = make(hello_file());
  EXPECT_THAT(encode(*tokenizer, "hello<|end|>", {.parse_special = true}),
              ElementsAre(kHello, kEnd));
  EXPECT_THAT(encode(*tokenizer, "<think>", {.parse_special = true}), ElementsAre(kThink));
  EXPECT_THAT(encode(*tokenizer, "<|end|>"), ElementsAre('<', '|', 'e', 'n', 'd', '|', '>'));
  EXPECT_THAT(encode(*tokenizer, "<think>"), ElementsAre('<', 't', 'h', 'i', 'n', 'k', '>'));
}

TEST(Tokenizer, TakesAddedTokensThatAreLanguageFromAnyText) {
  const auto tokenizer = make(hello_file());
  EXPECT_THAT(encode(*tokenizer, "ß"), ElementsAre(kDoubleS));
}

TEST(Tokenizer, JoinsChatSegmentsAsOneText) {
  const auto tokenizer = make(hello_file());
  EXPECT_THAT(encode_chat(*tokenizer, {{"he", TextOrigin::kTemplate},
                                       {"llo", TextOrigin::kContent},
                                       {"<|end|>", TextOrigin::kTemplate}}),
              ElementsAre(kHello, kEnd));
}

TEST(Tokenizer, MakesNoControlTokenAcrossTheEdgeOfContent) {
  const auto tokenizer = make(hello_file());
  for (size_t cut = 1; cut < 7; ++cut) {
    const std::string text = "<|end|>";
    const auto ids = encode_chat(*tokenizer, {{text.substr(0, cut), TextOrigin::kTemplate},
                                              {text.substr(cut), TextOrigin::kContent}});
    EXPECT_EQ(ids.size(), text.size()) << cut;
    const auto reversed = encode_chat(*tokenizer, {{text.substr(0, cut), TextOrigin::kContent},
                                                   {text.substr(cut), TextOrigin::kTemplate}});
    EXPECT_EQ(reversed.size(), text.size()) << cut;
  }
  // Two template pieces that meet are one text, as they are for the original.
  EXPECT_THAT(
      encode_chat(*tokenizer, {{"<|e", TextOrigin::kTemplate}, {"nd|>", TextOrigin::kTemplate}}),
      ElementsAre(kEnd));
}

TEST(Tokenizer, NeverMergesToAControlToken) {
  Json model = small_model({{"<", "t"}, {"<t", ">"}});
  model.set("ignore_merges", true);
  // <t> (257) is a vocabulary entry, the result of a merge, and a control token.
  const auto tokenizer = make(small_tokenizer(model, {added_token(257, "<t>", false)}));
  EXPECT_THAT(encode(*tokenizer, "<t>"), ElementsAre('<', 't', '>'));
  EXPECT_THAT(encode(*tokenizer, "<t>", {.parse_special = true}), ElementsAre(257));
}

TEST(Tokenizer, PrefersTheLeftmostThenLongestAddedToken) {
  const Json file = small_tokenizer(
      small_model({}), {added_token(256, "<a>", true), added_token(257, "<a><b>", true),
                        added_token(258, "<b>", true)});
  const auto tokenizer = make(file);
  const EncodeOptions trusted{.parse_special = true};
  EXPECT_THAT(encode(*tokenizer, "<a><b><b>", trusted), ElementsAre(257, 258));
  EXPECT_THAT(encode(*tokenizer, "<a><a><b>", trusted), ElementsAre(256, 257));
  // The longer one crosses into content: the shorter one still counts.
  EXPECT_THAT(
      encode_chat(*tokenizer, {{"<a>", TextOrigin::kTemplate}, {"<b>", TextOrigin::kContent}}),
      ElementsAre(256, '<', 'b', '>'));
}

TEST(Tokenizer, StripsAndRespectsWordsAroundAddedTokens) {
  Json left = added_token(256, "<l>", true);
  left.set("lstrip", true);
  Json right = added_token(257, "<r>", true);
  right.set("rstrip", true);
  Json word = added_token(258, "cat", true);
  word.set("single_word", true);
  const auto tokenizer = make(small_tokenizer(small_model({}), {left, right, word}));
  const EncodeOptions trusted{.parse_special = true};
  EXPECT_THAT(encode(*tokenizer, "a \n<l> b", trusted), ElementsAre('a', 256, ' ', 'b'));
  EXPECT_THAT(encode(*tokenizer, "a <r>\t b", trusted), ElementsAre('a', ' ', 257, 'b'));
  EXPECT_THAT(encode(*tokenizer, "cat", trusted), ElementsAre(258));
  EXPECT_THAT(encode(*tokenizer, "cats", trusted), ElementsAre('c', 'a', 't', 's'));
  EXPECT_THAT(encode(*tokenizer, "-cat-", trusted), ElementsAre('-', 258, '-'));
}

TEST(Tokenizer, AddsBosAndEosOnlyWhenAsked) {
  const Json config = parsed(R"({"add_bos_token":true,"add_eos_token":true,
      "bos_token":{"content":"<think>"},"eos_token":"<|end|>"})");
  const auto tokenizer = make(hello_file(), config);
  EXPECT_THAT(encode(*tokenizer, "hello", {.add_special_tokens = true}),
              ElementsAre(kThink, kHello, kEnd));
  EXPECT_THAT(encode(*tokenizer, "hello"), ElementsAre(kHello));
  EXPECT_EQ(tokenizer->bos_id(), TokenId{kThink});
  EXPECT_EQ(tokenizer->eos_id(), TokenId{kEnd});
  EXPECT_EQ(make(hello_file())->bos_id(), std::nullopt);
}

TEST(Tokenizer, FollowsTheTemplateOfThePostProcessor) {
  Json file = hello_file();
  file.set("post_processor", parsed(R"({"type":"Sequence","processors":[{"type":"ByteLevel"},
      {"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<|end|>","type_id":0}},
        {"Sequence":{"id":"A","type_id":0}}],
       "special_tokens":{"<|end|>":{"id":"<|end|>","ids":[300],"tokens":["<|end|>"]}}}]})"));
  const auto tokenizer = make(file);
  EXPECT_THAT(encode(*tokenizer, "hello", {.add_special_tokens = true}), ElementsAre(kEnd, kHello));
}

TEST(Tokenizer, DecodesBytesAndSaysWhatIsIllFormed) {
  const auto tokenizer = make(hello_file());
  const std::vector<TokenId> ids{TokenId{kHello}, TokenId{0xC3}, TokenId{0xA4}, TokenId{kEnd},
                                 TokenId{0xE4}};
  EXPECT_EQ(tokenizer->decode(ids), "helloä<|end|>\uFFFD");
  EXPECT_EQ(tokenizer->decode(ids, {.skip_special = true}), "helloä\uFFFD");
  EXPECT_EQ(tokenizer->token_bytes(TokenId{0xE4}), "\xE4");
  EXPECT_EQ(tokenizer->token_bytes(TokenId{kThink}), "<think>");
  EXPECT_EQ(tokenizer->token_bytes(TokenId{299}), "");
  EXPECT_EQ(tokenizer->token_bytes(TokenId{-1}), "");
  EXPECT_EQ(tokenizer->token_bytes(TokenId{1 << 30}), "");
  EXPECT_EQ(tokenizer->vocab_size(), 303);
}

TEST(Tokenizer, KnowsItsTokensByText) {
  const auto tokenizer = make(hello_file());
  EXPECT_EQ(tokenizer->token_to_id("<|end|>"), TokenId{kEnd});
  EXPECT_EQ(tokenizer->token_to_id("hello"), TokenId{kHello});
  EXPECT_EQ(tokenizer->token_to_id("nothing"), std::nullopt);
  EXPECT_TRUE(tokenizer->is_special(TokenId{kEnd}));
  EXPECT_FALSE(tokenizer->is_special(TokenId{kThink}));
  EXPECT_TRUE(tokenizer->is_control(TokenId{kThink}));
  EXPECT_FALSE(tokenizer->is_control(TokenId{kDoubleS}));
}

TEST(Tokenizer, ReadsBrokenUtf8AsReplacementCharacters) {
  const auto tokenizer = make(hello_file());
  EXPECT_EQ(encode(*tokenizer, "a\xE4\xB8z\xFF"), encode(*tokenizer, "a\uFFFDz\uFFFD"));
  EXPECT_EQ(encode_chat(*tokenizer, {{"\xE4", TextOrigin::kContent}}),
            encode(*tokenizer, "\uFFFD"));
}

TEST(Tokenizer, NormalizesToFormC) {
  Json file = hello_file();
  file.set("normalizer", parsed(R"({"type":"NFC"})"));
  const auto tokenizer = make(file);
  EXPECT_EQ(encode(*tokenizer, "e\u0301"), encode(*tokenizer, "\u00E9"));
  // The control token after a text that changes its length is still found where it is trusted.
  EXPECT_THAT(encode_chat(*tokenizer, {{"e\u0301<|end|>", TextOrigin::kContent},
                                       {"e\u0301<|end|>", TextOrigin::kTemplate}}),
              testing::AllOf(testing::Contains(kEnd).Times(1), testing::SizeIs(2 + 7 + 2 + 1)));
}

TEST(Tokenizer, FindsNormalizedAddedTokensAfterNormalisation) {
  Json token = added_token(256, "<\u00E9>", true);
  token.set("normalized", true);
  Json file = small_tokenizer(small_model({}), {token});
  file.set("normalizer", parsed(R"({"type":"Sequence","normalizers":[{"type":"NFC"}]})"));
  const auto tokenizer = make(file);
  EXPECT_THAT(encode(*tokenizer, "e\u0301<e\u0301>", {.parse_special = true}),
              ElementsAre(0xC3, 0xA9, 256));
  EXPECT_THAT(encode_chat(*tokenizer, {{"e\u0301<e\u0301>", TextOrigin::kContent},
                                       {"<e\u0301>", TextOrigin::kTemplate}}),
              ElementsAre(0xC3, 0xA9, '<', 0xC3, 0xA9, '>', 256));
}

TEST(Tokenizer, RefusesTextBeyondTheLimit) {
  TokenizerLimits limits;
  limits.input_bytes_max = 10;
  const auto tokenizer = Tokenizer::from_json(hello_file(), {}, limits).value();
  EXPECT_TRUE(tokenizer->encode("0123456789").has_value());
  const auto refused = tokenizer->encode("0123456789a");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kExhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("11 bytes, at most 10"));
  EXPECT_FALSE(tokenizer->encode_chat(std::vector<TextSegment>{{"012345"}, {"67890"}}).has_value());
}

TEST(Tokenizer, RefusesWhatItDoesNotKnowByName) {
  Json file = hello_file();
  file.set("pre_tokenizer", parsed(R"({"type":"Metaspace"})"));
  EXPECT_THAT(refusal(file), HasSubstr("'Metaspace'"));
  file = hello_file();
  file.set("normalizer", parsed(R"({"type":"Lowercase"})"));
  EXPECT_THAT(refusal(file), HasSubstr("'Lowercase'"));
  file = hello_file();
  file.set("post_processor", parsed(R"({"type":"BertProcessing"})"));
  EXPECT_THAT(refusal(file), HasSubstr("'BertProcessing'"));
  file = hello_file();
  file.find("model")->set("type", "Unigram");
  EXPECT_THAT(refusal(file), HasSubstr("Unigram"));
  EXPECT_THAT(refusal(parsed("{}")), HasSubstr("model"));
  EXPECT_THAT(refusal(hello_file(), parsed(R"({"add_bos_token":true})")), HasSubstr("bos_token"));
}

TEST(Tokenizer, RefusesAddedTokensThatLie) {
  const Json model = small_model({});
  EXPECT_THAT(refusal(small_tokenizer(model, {added_token(-1, "<a>", true)})), HasSubstr("id"));
  EXPECT_THAT(refusal(small_tokenizer(model, {added_token(1 << 30, "<a>", true)})),
              HasSubstr("id"));
  EXPECT_THAT(refusal(small_tokenizer(model, {added_token(256, "", true)})), HasSubstr("content"));
  EXPECT_THAT(refusal(small_tokenizer(model, {added_token(256, std::string(513, 'x'), true)})),
              HasSubstr("1 to 512 bytes"));
  EXPECT_THAT(refusal(small_tokenizer(
                  model, {added_token(256, "<a>", true), added_token(256, "<b>", true)})),
              HasSubstr("twice"));
  TokenizerLimits limits;
  limits.added_tokens.tokens_max = 2;
  const auto result = Tokenizer::from_json(hello_file(), {}, limits);
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().message, HasSubstr("at most 2"));
}

TEST(Tokenizer, LoadsAFolderWithOrWithoutConfig) {
  const TestFolder own;
  const std::string& folder = own.path();
  EXPECT_EQ(Tokenizer::load(folder).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(write_file(folder + "/tokenizer.json", hello_file().dump()).has_value());
  EXPECT_EQ((*Tokenizer::load(folder))->eos_id(), std::nullopt);
  ASSERT_TRUE(
      write_file(folder + "/tokenizer_config.json", R"({"eos_token":"<|end|>"})").has_value());
  EXPECT_EQ((*Tokenizer::load(folder))->eos_id(), TokenId{kEnd});
  ASSERT_TRUE(write_file(folder + "/tokenizer_config.json", "{").has_value());
  EXPECT_THAT(Tokenizer::load(folder).error().message, HasSubstr("tokenizer_config.json"));
}

TEST(Tokenizer, ServesManyThreadsAtOnce) {
  const auto tokenizer = make(hello_file());
  const std::string text = "hello <|end|> hell he ß hello";
  const std::vector<int> expected = encode(*tokenizer, text);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round)
        EXPECT_EQ(encode(*tokenizer, text), expected);
    });
  }
  for (std::thread& thread : threads)
    thread.join();
}

}  // namespace
}  // namespace wideep::tokenizer
