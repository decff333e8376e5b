#include "api/responses.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace wideep::api {
namespace {

const AnswerHead kHead{"chatcmpl-1", 7, "m"};
const AnswerTail kTail{.usage = {.prompt_tokens = 3, .completion_tokens = 2, .cached_tokens = 1},
                       .kv_transfer_params = {}};
constexpr std::string_view kUsage =
    R"("usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2,)"
    R"("prompt_tokens_details":{"cached_tokens":1}})";

std::string with_usage(std::string text) {
  return text.replace(text.find("USAGE"), 5, kUsage);
}

TEST(ChatAnswer, HasOpenAisShape) {
  const ChoicePart choice{.text = "hi", .finish_reason = "stop", .stop_reason = std::string("END")};
  EXPECT_EQ(
      encode_chat_answer(kHead, {choice}, kTail),
      with_usage(R"({"id":"chatcmpl-1","object":"chat.completion","created":7,"model":"m",)"
                 R"("choices":[{"index":0,"message":{"role":"assistant","content":"hi",)"
                 R"("refusal":null},"logprobs":null,"finish_reason":"stop","stop_reason":"END"}],)"
                 R"("service_tier":null,"system_fingerprint":null,USAGE})"));
}

TEST(ChatAnswer, KeepsReasoningApart) {
  const ChoicePart choice{.text = "hi", .reasoning = "so", .finish_reason = "stop"};
  const Json json = *parse_json(encode_chat_answer(kHead, {choice}, kTail));
  const Json* message = json.find("choices")->as_array()->at(0).find("message");
  EXPECT_EQ(*message->find("reasoning_content")->as_string(), "so");
  EXPECT_EQ(*message->find("content")->as_string(), "hi");
}

TEST(ChatAnswer, WritesLogprobsThatJsonCanHold) {
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const ChoicePart choice{
      .logprobs = {{{.chosen = {"\xE2\x82", -0.5}, .top = {{"a", -inf}, {"b", nan}}}}},
      .finish_reason = "length"};
  const std::string text = encode_chat_answer(kHead, {choice}, kTail);
  EXPECT_NE(text.find("\"logprobs\":{\"content\":[{\"token\":\"\xEF\xBF\xBD"), std::string::npos)
      << text;
  EXPECT_NE(text.find(R"("logprob":-0.5,"bytes":[226,130],"top_logprobs":[{"token":"a",)"
                      R"("logprob":-9999.0,"bytes":[97]},{"token":"b","logprob":-9999.0,)"),
            std::string::npos)
      << text;
}

TEST(CompletionAnswer, HasParallelArraysOfLogprobs) {
  const ChoicePart choice{.index = 1,
                          .text = "ab",
                          .logprobs = {{{.chosen = {"a", -1}, .top = {{"x", -0.5}, {"x", -2}}},
                                        {.chosen = {"\xE2", -3}, .top = {}}}},
                          .text_offset = 0,
                          .finish_reason = "length",
                          .stop_reason = {},
                          .token_ids = {{TokenId{5}, TokenId{6}}}};
  EXPECT_EQ(
      encode_completion_answer(kHead, {choice}, kTail),
      with_usage(R"({"id":"chatcmpl-1","object":"text_completion","created":7,"model":"m",)"
                 R"("choices":[{"index":1,"text":"ab","logprobs":{"text_offset":[0,1],)"
                 R"("token_logprobs":[-1.0,-3.0],"tokens":["a","bytes:\\xe2"],"top_logprobs":)"
                 R"([{"x":-0.5,"a":-1.0},{"bytes:\\xe2":-3.0}]},"finish_reason":"length",)"
                 R"("stop_reason":null,"token_ids":[5,6]}],"system_fingerprint":null,USAGE})"));
}

TEST(ChatChunks, OpenContinueEndAndCount) {
  const ChunkEncoder encoder(ChunkEncoder::Kind::kChat, kHead);
  const std::string begin =
      R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","choices":[)";
  EXPECT_EQ(encoder.opening({.index = 1}, nullptr),
            begin + R"({"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,)"
                    R"("finish_reason":null}]})");
  EXPECT_EQ(
      encoder.part({.index = 1, .text = "x"}, nullptr),
      begin + R"({"index":1,"delta":{"content":"x"},"logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(encoder.part({.reasoning = "r"}, nullptr),
            begin + R"({"index":0,"delta":{"reasoning_content":"r"},"logprobs":null,)"
                    R"("finish_reason":null}]})");
  EXPECT_EQ(encoder.part({.finish_reason = "stop", .stop_reason = TokenId{9}}, nullptr),
            begin + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop",)"
                    R"("stop_reason":9}]})");
  EXPECT_EQ(encoder.usage(kTail), with_usage(begin + "],USAGE}"));
}

TEST(ChatChunks, OpenWithThePromptsTokensBesideTheChoices) {
  const ChunkEncoder encoder(ChunkEncoder::Kind::kChat, kHead);
  const auto json = parse_json(encoder.opening({.prompt_token_ids = {{TokenId{5}}}}, nullptr));
  ASSERT_TRUE(json);
  EXPECT_EQ(json->find("prompt_token_ids")->dump(), "[5]");
  EXPECT_EQ(json->find("choices")->as_array()->at(0).find("prompt_token_ids"), nullptr);
}

TEST(ChatChunks, MayAllCarryUsage) {
  const ChunkEncoder encoder(ChunkEncoder::Kind::kChat, kHead);
  EXPECT_NE(encoder.part({.text = "x"}, &kTail.usage).find(kUsage), std::string::npos);
}

TEST(ChatChunks, CarryTheKvTicketLast) {
  const ChunkEncoder encoder(ChunkEncoder::Kind::kChat, kHead);
  AnswerTail tail = kTail;
  tail.kv_transfer_params = Json(Json::Object{{"a", 1}});
  const auto json = parse_json(encoder.usage(tail));
  ASSERT_TRUE(json);
  EXPECT_EQ(json->find("kv_transfer_params")->dump(), R"({"a":1})");
}

TEST(CompletionChunks, CountOffsetsOverTheWholeChoice) {
  const ChunkEncoder encoder(ChunkEncoder::Kind::kCompletion, kHead);
  const std::string chunk = encoder.part(
      {.text = "x", .logprobs = {{{.chosen = {"x", -1}, .top = {}}}}, .text_offset = 42}, nullptr);
  EXPECT_NE(chunk.find(R"("object":"text_completion")"), std::string::npos);
  EXPECT_NE(chunk.find(R"("text_offset":[42])"), std::string::npos);
}

TEST(Models, AreAList) {
  EXPECT_EQ(encode_models({{.id = "m", .created = 7, .root = "r", .max_model_len = 9}}),
            R"({"object":"list","data":[{"id":"m","object":"model","created":7,)"
            R"("owned_by":"wideep","root":"r","parent":null,"max_model_len":9,"permission":[]}]})");
}

TEST(Tokenize, AnswersAsVllmDoes) {
  EXPECT_EQ(encode_tokenize({{TokenId{1}, TokenId{2}}, 9, std::nullopt}),
            R"({"count":2,"max_model_len":9,"tokens":[1,2],"token_strs":null})");
  EXPECT_EQ(encode_tokenize({{TokenId{1}}, 9, {{"a"}}}),
            R"({"count":1,"max_model_len":9,"tokens":[1],"token_strs":["a"]})");
  EXPECT_EQ(encode_detokenize("a\"b"), R"({"prompt":"a\"b"})");
}

}  // namespace
}  // namespace wideep::api
