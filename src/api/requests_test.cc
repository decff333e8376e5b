#include "api/requests.h"

#include "api/field_reader.h"
#include "api/generation_fields.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace wideep::api {
namespace {

constexpr std::string_view kMessages = R"("messages":[{"role":"user","content":"hi"}])";

ApiResult<ChatRequest> chat(std::string_view fields, const RequestLimits& limits = {}) {
  const std::string comma = fields.empty() ? "" : ",";
  return parse_chat_request(fmt::format("{{{}{}{}}}", kMessages, comma, fields), limits);
}

ApiResult<CompletionRequest> completion(std::string_view fields, const RequestLimits& limits = {}) {
  return parse_completion_request(fmt::format("{{{}}}", fields), limits);
}

// The field that a chat request with `fields` is refused for; "" if it is accepted.
std::string param_of(std::string_view fields) {
  const auto request = chat(fields);
  if (request) return "";
  EXPECT_EQ(request.error().status, 400);
  return request.error().param;
}

std::string code_of(std::string_view fields) {
  const auto request = chat(fields);
  return request ? "" : std::string(request.error().code);
}

TEST(ChatRequest, ReadsEveryField) {
  const auto request = chat(R"(
    "model":"m","n":2,"max_tokens":5,"min_tokens":1,"temperature":0.5,"top_p":0.9,"top_k":40,
    "min_p":0.1,"repetition_penalty":1.1,"presence_penalty":-1,"frequency_penalty":1.5,"seed":-7,
    "stop":["a","b"],"stop_token_ids":[3],"logit_bias":{"5":-100,"6":1.5},
    "allowed_token_ids":[1,2],"include_stop_str_in_output":true,"ignore_eos":true,
    "skip_special_tokens":false,"stream":true,
    "stream_options":{"include_usage":true,"continuous_usage_stats":true},"priority":-3,
    "cache_salt":"s","request_id":"r","return_token_ids":true,"logprobs":true,"top_logprobs":4,
    "add_generation_prompt":false,"continue_final_message":true,
    "chat_template_kwargs":{"thinking":true},"include_reasoning":false,"user":"u","metadata":{},
    "store":true,"service_tier":"auto","parallel_tool_calls":true,
    "response_format":{"type":"text"},"tool_choice":"none")");
  ASSERT_TRUE(request) << request.error().message;
  const GenerationFields& fields = request->generation;
  EXPECT_EQ(fields.model, "m");
  EXPECT_EQ(fields.n, 2);
  EXPECT_EQ(fields.max_tokens, 5);
  EXPECT_EQ(fields.temperature, 0.5);
  EXPECT_EQ(fields.top_k, 40);
  EXPECT_EQ(fields.seed, -7);
  EXPECT_EQ(fields.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(fields.logit_bias.size(), 2U);
  EXPECT_EQ(fields.logprobs, 4);
  EXPECT_TRUE(fields.stream && fields.include_usage && fields.continuous_usage_stats);
  EXPECT_EQ(fields.priority, -3);
  EXPECT_FALSE(request->chat.add_generation_prompt);
  EXPECT_FALSE(request->include_reasoning);
  EXPECT_EQ(request->chat.template_kwargs.dump(), R"({"thinking":true})");
}

TEST(ChatRequest, NullIsTheSameAsAbsent) {
  EXPECT_EQ(param_of(R"("n":null,"stop":null,"tools":null,"response_format":null,"seed":null,
                        "stream_options":null,"best_of":null,"logprobs":null)"),
            "");
}

TEST(ChatRequest, MaxCompletionTokensWins) {
  EXPECT_EQ(chat(R"("max_tokens":5,"max_completion_tokens":7)")->generation.max_tokens, 7);
  EXPECT_EQ(completion(R"("prompt":"a","max_completion_tokens":7)")->generation.max_tokens, 7);
}

TEST(ChatRequest, NamesTheFieldThatIsOutOfRange) {
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"n", "0"},
                                                        {"n", "17"},
                                                        {"n", "1e30"},
                                                        {"temperature", "-0.1"},
                                                        {"temperature", "2.1"},
                                                        {"top_p", "0"},
                                                        {"top_p", "1.1"},
                                                        {"top_k", "-2"},
                                                        {"min_p", "2"},
                                                        {"repetition_penalty", "0"},
                                                        {"presence_penalty", "3"},
                                                        {"frequency_penalty", "-3"},
                                                        {"max_tokens", "0"},
                                                        {"max_completion_tokens", "0"},
                                                        {"min_tokens", "-1"},
                                                        {"seed", "9223372036854775808"},
                                                        {"priority", "2147483648"},
                                                        {"top_logprobs", "21"},
                                                        {"stop_token_ids", "[-1]"},
                                                        {"stop_token_ids", "[2147483648]"},
                                                        {"logit_bias", "[1]"},
                                                        {"logit_bias", R"({"x":1})"},
                                                        {"logit_bias", R"({"-1":1})"},
                                                        {"logit_bias", R"({"1":101})"},
                                                        {"stop", R"([""])"},
                                                        {"stop", "[1]"},
                                                        {"stop", "1"}}) {
    EXPECT_EQ(param_of(fmt::format("\"logprobs\":true,\"{}\":{}", name, value)), name) << value;
  }
}

TEST(ChatRequest, NamesTheFieldOfTheWrongType) {
  for (const std::string name :
       {"n", "temperature", "top_p", "max_tokens", "seed", "stream", "ignore_eos", "priority"}) {
    EXPECT_EQ(param_of(fmt::format("\"{}\":\"1\"", name)), name);
    EXPECT_EQ(param_of(fmt::format("\"{}\":[]", name)), name);
  }
  EXPECT_EQ(param_of("\"n\":true"), "n");
  EXPECT_EQ(param_of("\"n\":1.5"), "n");
  EXPECT_EQ(param_of("\"n\":2.0"), "");  // what JavaScript may write for 2
  EXPECT_EQ(param_of("\"model\":1"), "model");
}

TEST(ChatRequest, HitsEveryLimit) {
  const RequestLimits limits;
  const auto list = [](size_t count, std::string_view item) {
    std::string out = "[";
    for (size_t i = 0; i < count; ++i)
      out.append(i == 0 ? "" : ",").append(item);
    return out + "]";
  };
  EXPECT_EQ(param_of("\"stop\":" + list(limits.stops_max, "\"a\"")), "");
  EXPECT_EQ(param_of("\"stop\":" + list(limits.stops_max + 1, "\"a\"")), "stop");
  EXPECT_EQ(param_of("\"stop\":\"" + std::string(limits.stop_bytes_max + 1, 'a') + "\""), "stop");
  EXPECT_EQ(param_of("\"stop_token_ids\":" + list(limits.stop_token_ids_max + 1, "1")),
            "stop_token_ids");
  EXPECT_EQ(param_of("\"allowed_token_ids\":" + list(limits.allowed_token_ids_max + 1, "1")),
            "allowed_token_ids");
  EXPECT_EQ(param_of("\"allowed_token_ids\":[]"), "allowed_token_ids");
  std::string biases;
  for (size_t i = 0; i <= limits.logit_bias_max; ++i)
    biases += fmt::format("{}\"{}\":1", i == 0 ? "" : ",", i);
  EXPECT_EQ(param_of("\"logit_bias\":{" + biases + "}"), "logit_bias");
  EXPECT_EQ(param_of("\"model\":\"" + std::string(limits.id_bytes_max + 1, 'a') + "\""), "model");
  const std::string long_value(limits.template_kwargs_bytes_max, 'a');
  EXPECT_EQ(param_of("\"chat_template_kwargs\":{\"a\":\"" + long_value + "\"}"),
            "chat_template_kwargs");
  const std::string message = R"({"role":"user","content":""})";
  const auto many =
      parse_chat_request("{\"messages\":" + list(limits.messages_max + 1, message) + "}", limits);
  EXPECT_EQ(many.error().param, "messages");
  EXPECT_FALSE(parse_chat_request(std::string(100, '['), limits));
}

TEST(ChatRequest, RefusesByNameWhatIsNotImplemented) {
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {"tools", "[{}]"},
           {"tool_choice", "\"auto\""},
           {"functions", "[]"},
           {"response_format", R"({"type":"json_object"})"},
           {"best_of", "2"},
           {"suffix", "\"x\""},
           {"prompt_logprobs", "1"},
           {"use_beam_search", "true"},
           {"structured_outputs", "{}"},
           {"guided_json", "{}"},
           {"audio", "{}"},
           {"modalities", "[\"audio\"]"},
           {"reasoning_effort", "\"high\""},
           {"chat_template", "\"x\""},
           {"echo", "true"},
           {"kv_transfer_params", "{}"},
           {"service_tier", "\"flex\""},
           {"bad_words", "[\"x\"]"}}) {
    EXPECT_EQ(param_of(fmt::format("\"{}\":{}", name, value)), name);
    EXPECT_EQ(code_of(fmt::format("\"{}\":{}", name, value)), "not_implemented") << name;
  }
  EXPECT_EQ(code_of("\"tools\":[]"), "invalid_value");
}

TEST(ChatRequest, TakesDefaultsOfWhatIsNotImplemented) {
  EXPECT_TRUE(chat(R"("n":2,"best_of":2,"suffix":"","use_beam_search":false,"length_penalty":1.0,
      "early_stopping":false,"bad_words":[],"return_tokens_as_token_ids":false,"echo":false,
      "logprobs":false,"top_logprobs":0,"guided_json":null,"response_format":{"type":"text"})"));
  EXPECT_TRUE(chat(R"("length_penalty":1)"));
  EXPECT_TRUE(completion(R"("prompt":"a","best_of":1,"response_format":{"type":"text"})"));
}

TEST(ChatRequest, RefusesFieldsThatNobodyKnows) {
  EXPECT_EQ(param_of("\"temprature\":1"), "temprature");
  EXPECT_EQ(code_of("\"temprature\":1"), "unknown_field");
  EXPECT_EQ(param_of("\"stream\":true,\"stream_options\":{\"x\":1}"), "stream_options.x");
}

TEST(ChatRequest, RefusesFieldsThatContradict) {
  EXPECT_EQ(param_of("\"stream_options\":{\"include_usage\":true}"), "stream_options");
  EXPECT_EQ(param_of("\"top_logprobs\":2"), "top_logprobs");
  EXPECT_EQ(param_of("\"continue_final_message\":true"), "continue_final_message");
}

TEST(ChatRequest, TakesKvTransferOnlyWhereItIsAllowed) {
  const RequestLimits trusted{.allow_kv_transfer = true};
  const auto request = chat(R"("kv_transfer_params":{"do_remote_decode":true})", trusted);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->generation.kv_transfer_params->dump(), R"({"do_remote_decode":true})");
  EXPECT_FALSE(chat(R"("kv_transfer_params":[])", trusted));
}

TEST(ChatRequest, ProtectsWhatTheRendererSets) {
  EXPECT_EQ(param_of(R"("chat_template_kwargs":{"messages":"x"})"), "chat_template_kwargs");
  EXPECT_EQ(param_of(R"("chat_template_kwargs":{"a":{}})"), "chat_template_kwargs");
  EXPECT_EQ(param_of(R"("chat_template_kwargs":1)"), "chat_template_kwargs");
}

ApiResult<ChatRequest> with_message(std::string_view message) {
  return parse_chat_request(fmt::format("{{\"messages\":[{}]}}", message), {});
}

TEST(ChatMessages, ReadTextInItsForms) {
  const auto request = parse_chat_request(
      R"({"messages":[{"role":"system","content":"s","name":"n"},
          {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
          {"role":"assistant","content":null,"reasoning_content":"r","tool_calls":[]}]})",
      {});
  ASSERT_TRUE(request) << request.error().message;
  const std::vector<ChatMessage>& messages = request->chat.messages;
  EXPECT_EQ(messages[0].name, "n");
  EXPECT_EQ(messages[1].content, "a\nb");
  EXPECT_EQ(messages[2].content, std::nullopt);
  EXPECT_EQ(messages[2].reasoning_content, "r");
}

TEST(ChatMessages, NameWhatIsWrongAndWhere) {
  EXPECT_EQ(with_message(R"({"role":"user"})").error().param, "messages[0].content");
  EXPECT_EQ(with_message(R"({"role":"king","content":""})").error().param, "messages[0].role");
  EXPECT_EQ(with_message(R"({"content":""})").error().param, "messages[0].role");
  EXPECT_EQ(with_message(R"({"role":"user","content":1})").error().param, "messages[0].content");
  EXPECT_EQ(with_message(R"({"role":"user","content":"","x":1})").error().param, "messages[0].x");
  EXPECT_FALSE(with_message("1"));
  EXPECT_FALSE(with_message(""));
}

TEST(ChatMessages, RefuseToolsAndPictures) {
  EXPECT_EQ(with_message(R"({"role":"tool","content":"x"})").error().code, "not_implemented");
  EXPECT_EQ(with_message(R"({"role":"assistant","content":"","tool_calls":[{}]})").error().code,
            "not_implemented");
  const auto picture =
      with_message(R"({"role":"user","content":[{"type":"image_url","image_url":{}}]})");
  EXPECT_EQ(picture.error().param, "image_url");
}

TEST(CompletionRequest, ReadsPromptsInTheirFourForms) {
  using Tokens = std::vector<TokenId>;
  EXPECT_EQ(completion(R"("prompt":"a")")->prompts, std::vector<Prompt>{"a"});
  EXPECT_EQ(completion(R"("prompt":["a","b"])")->prompts, (std::vector<Prompt>{"a", "b"}));
  EXPECT_EQ(completion(R"("prompt":[1,2])")->prompts,
            std::vector<Prompt>{(Tokens{TokenId{1}, TokenId{2}})});
  EXPECT_EQ(completion(R"("prompt":[[1],[2]])")->prompts,
            (std::vector<Prompt>{Tokens{TokenId{1}}, Tokens{TokenId{2}}}));
}

TEST(CompletionRequest, RefusesOtherPrompts) {
  for (const std::string prompt : {"{}", "[]", "1", "[1,\"a\"]", "[true]", "[-1]", "[1.5]",
                                   "[[1],{}]", "[2147483648]", "null"}) {
    const auto request = completion("\"prompt\":" + prompt);
    ASSERT_FALSE(request) << prompt;
    EXPECT_EQ(request.error().param, "prompt") << prompt;
  }
  std::string many = "\"a\"";
  for (size_t i = 0; i < RequestLimits{}.prompts_max; ++i)
    many += ",\"a\"";
  EXPECT_FALSE(completion("\"prompt\":[" + many + "]"));
}

TEST(CompletionRequest, ReadsLogprobsAndEcho) {
  EXPECT_EQ(completion(R"("prompt":"a","logprobs":3)")->generation.logprobs, 3);
  EXPECT_TRUE(completion(R"("prompt":"a","echo":true)")->echo);
  EXPECT_EQ(completion(R"("prompt":"a","echo":true,"logprobs":1)").error().param, "echo");
  EXPECT_EQ(completion(R"("prompt":"a","messages":[])").error().param, "messages");
}

TEST(TokenizeRequest, ReadsBothForms) {
  const auto plain = parse_tokenize_request(
      R"({"model":"m","prompt":"x","add_special_tokens":false,"return_token_strs":true})", {});
  ASSERT_TRUE(plain) << plain.error().message;
  EXPECT_EQ(std::get<std::string>(plain->input), "x");
  EXPECT_FALSE(plain->add_special_tokens);
  const auto chat_form = parse_tokenize_request(fmt::format("{{{}}}", kMessages), {});
  ASSERT_TRUE(chat_form) << chat_form.error().message;
  EXPECT_EQ(std::get<ChatFields>(chat_form->input).messages.size(), 1U);
  EXPECT_FALSE(parse_tokenize_request("{}", {}));
}

TEST(DetokenizeRequest, WantsTokens) {
  EXPECT_EQ(parse_detokenize_request(R"({"tokens":[1,2]})", {})->tokens.size(), 2U);
  EXPECT_FALSE(parse_detokenize_request("{}", {}));
  EXPECT_FALSE(parse_detokenize_request(R"({"tokens":["a"]})", {}));
}

TEST(Requests, RefuseWhatIsNoJsonObject) {
  for (const std::string body : {"", "1", "[]", "{", "null", "\"x\"", "{\"a\":1,\"a\":2}",
                                 "{\"n\":1e999}", "{\"model\":\"\xFF\"}"}) {
    const auto request = parse_chat_request(body, {});
    ASSERT_FALSE(request) << body;
    EXPECT_EQ(request.error().status, 400);
    EXPECT_EQ(request.error().code, "invalid_json");
  }
}

}  // namespace
}  // namespace wideep::api
