#include "server/api_server.h"

#include "http/client.h"
#include "http/sse.h"
#include "http/testing/raw_client.h"
#include "server/api_core.h"
#include "server/fake_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <future>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace wideep::server {
namespace {

using engine::FinishReason;
using http::testing::RawClient;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::string_view kChat = "/v1/chat/completions";
constexpr std::string_view kCompletions = "/v1/completions";

class ApiServerTest : public ::testing::Test {
 protected:
  void start(ApiServerOptions options = {}) {
    if (options.served_model_names.empty()) options.served_model_names = {"toy", "alias"};
    options.version = "1.2.3";
    server_.emplace(ApiServerParts{.loop = thread_.loop(),
                                   .engine = engine_,
                                   .tokenizer = byte_tokenizer(),
                                   .renderer = render_simple_chat,
                                   .clock = real_clock()},
                    std::move(options));
    const auto address = server_->listen({"127.0.0.1", 0, {}});
    ASSERT_TRUE(address) << address.error().message;
    address_ = *address;
    client_.emplace(thread_.loop());
  }

  http::Response call(std::string_view method,
                      std::string_view target,
                      std::string body = {},
                      http::Headers headers = {}) {
    headers.set("content-type", "application/json");
    const auto response = client_->fetch({.address = address_,
                                          .method = std::string(method),
                                          .target = std::string(target),
                                          .headers = std::move(headers),
                                          .body = std::move(body)});
    EXPECT_TRUE(response) << response.error().error.message;
    return response.value_or(http::Response{.status = 0, .headers = {}, .body = {}});
  }

  http::Response get(std::string_view target) { return call("GET", target); }

  http::Response post(std::string_view target, std::string body) {
    return call("POST", target, std::move(body));
  }

  // A request whose answer the test reads by hand.
  RawClient begin(std::string_view target, std::string_view body) {
    RawClient raw(address_);
    raw.send(
        fmt::format("POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    "Content-Length: {}\r\n\r\n{}",
                    target, body.size(), body));
    return raw;
  }

  // A chat about "hi" with these fields beside the messages.
  static std::string chat_body(std::string_view fields = "") {
    return fmt::format(R"({{"messages":[{{"role":"user","content":"hi"}}]{}{}}})",
                       fields.empty() ? "" : ",", fields);
  }

  static std::vector<std::string> events_of(std::string_view body) {
    std::vector<std::string> events;
    http::EventParser parser;
    EXPECT_TRUE(parser.feed(body, [&](const http::Event& e) { events.push_back(e.data); }));
    return events;
  }

  static Json json_of(const http::Response& response) {
    const auto json = parse_json(response.body);
    EXPECT_TRUE(json) << response.body;
    return json.value_or(Json());
  }

  static std::string error_code(const http::Response& response) {
    const Json json = json_of(response);
    const Json* error = json.find("error");
    if (error == nullptr || error->find("code") == nullptr) return "none";
    return *error->find("code")->as_string();
  }

  net::LoopThread thread_;
  FakeEngine engine_;
  std::optional<ApiServer> server_;
  std::optional<http::Client> client_;
  net::Address address_;
};

TEST_F(ApiServerTest, AnswersAChat) {
  start();
  engine_.on_submit(answer_with("hello"));
  const http::Response response =
      call("POST", kChat, chat_body(R"("model":"alias","seed":7,"max_tokens":20)"),
           {{"x-request-id", "abc"}});
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.get("x-request-id"), "abc");
  EXPECT_EQ(response.headers.get("content-type"), "application/json");
  const Json json = json_of(response);
  EXPECT_EQ(*json.find("id")->as_string(), "chatcmpl-abc");
  EXPECT_EQ(*json.find("model")->as_string(), "alias");
  const Json& choice = json.find("choices")->as_array()->at(0);
  EXPECT_EQ(*choice.find("message")->find("content")->as_string(), "hello");
  EXPECT_EQ(*choice.find("finish_reason")->as_string(), "stop");
  EXPECT_EQ(json.find("usage")->find("prompt_tokens")->as_int(), 3);
  EXPECT_EQ(json.find("usage")->find("completion_tokens")->as_int(), 5);
  EXPECT_EQ(json.find("usage")->find("prompt_tokens_details")->find("cached_tokens")->as_int(), 1);
  const engine::Request request = engine_.wait_for_request(0).request;
  EXPECT_EQ(byte_tokenizer().decode(request.prompt_tokens), "[user]hi\n[assistant]");
  EXPECT_EQ(request.sampling.seed, 7);
  EXPECT_EQ(request.stop.max_tokens, 20);
}

TEST_F(ApiServerTest, FillsInWhatTheModelAndTheContextSay) {
  ApiServerOptions options;
  options.defaults.temperature = 0.25;
  options.defaults.top_k = 9;
  start(std::move(options));
  engine_.on_submit(answer_with("x"));
  post(kChat, chat_body());
  const engine::Request chat = engine_.wait_for_request(0).request;
  EXPECT_EQ(chat.sampling.temperature, 0.25F);
  EXPECT_EQ(chat.sampling.top_k, 9);
  EXPECT_EQ(chat.stop.max_tokens, 1000 - static_cast<int64_t>(chat.prompt_tokens.size()));
  post(kCompletions, R"({"prompt":"ab","temperature":1})");
  const engine::Request completion = engine_.wait_for_request(1).request;
  EXPECT_EQ(completion.sampling.temperature, 1.0F);
  EXPECT_EQ(completion.stop.max_tokens, 16);
}

TEST_F(ApiServerTest, StreamsAChatInTheOrderClientsExpect) {
  start();
  engine_.on_submit([](const FakeEngine::Submitted& submitted) {
    submitted.sink(text_event("a"));
    submitted.sink(text_event(""));  // nothing to show: no chunk
    submitted.sink(text_event("b", FinishReason::kLength));
  });
  const http::Response response =
      post(kChat, chat_body(R"("stream":true,"stream_options":{"include_usage":true})"));
  EXPECT_EQ(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_FALSE(response.headers.get("x-request-id").empty());
  const std::vector<std::string> events = events_of(response.body);
  ASSERT_EQ(events.size(), 5U) << response.body;
  EXPECT_THAT(events[0], HasSubstr(R"("delta":{"role":"assistant","content":""})"));
  EXPECT_THAT(events[1],
              HasSubstr(R"("delta":{"content":"a"},"logprobs":null,"finish_reason":null)"));
  EXPECT_THAT(events[2], HasSubstr(R"("delta":{"content":"b"})"));
  EXPECT_THAT(events[2], HasSubstr(R"("finish_reason":"length")"));
  EXPECT_THAT(events[3], HasSubstr(R"("choices":[],"usage":{"prompt_tokens":3,)"));
  EXPECT_EQ(events[4], "[DONE]");
}

TEST_F(ApiServerTest, StreamsEachChoiceWithItsOwnOpening) {
  start();
  engine_.on_submit(answer_with("x"));
  const http::Response response = post(kChat, chat_body(R"("stream":true,"n":2,"seed":5)"));
  const std::vector<std::string> events = events_of(response.body);
  ASSERT_EQ(events.size(), 5U) << response.body;
  EXPECT_THAT(events[0], HasSubstr(R"("index":0,"delta":{"role")"));
  EXPECT_THAT(events[2], HasSubstr(R"("index":1,"delta":{"role")"));
  EXPECT_EQ(engine_.wait_for_request(1).request.sampling.seed, 6);
}

TEST_F(ApiServerTest, CountsThePromptOfSeveralChoicesOnce) {
  start();
  engine_.on_submit(answer_with("abcd"));
  const Json json = json_of(post(kChat, chat_body(R"("n":3)")));
  EXPECT_EQ(json.find("choices")->as_array()->size(), 3U);
  EXPECT_EQ(json.find("usage")->find("prompt_tokens")->as_int(), 3);
  EXPECT_EQ(json.find("usage")->find("completion_tokens")->as_int(), 12);
}

TEST_F(ApiServerTest, PutsUsageOnEveryChunkWhenAsked) {
  start();
  engine_.on_submit(answer_with("x"));
  const auto events = events_of(
      post(kChat, chat_body(R"("stream":true,"stream_options":{"continuous_usage_stats":true})"))
          .body);
  ASSERT_EQ(events.size(), 3U);
  EXPECT_THAT(events[0], HasSubstr("\"usage\":{"));
  EXPECT_THAT(events[1], HasSubstr("\"usage\":{"));
}

TEST_F(ApiServerTest, KeepsReasoningApartHoweverItIsCut) {
  start();
  engine_.on_submit([](const FakeEngine::Submitted& submitted) {
    for (const std::string text : {"so", "\n</th", "ink>\n", "\nyes"})
      submitted.sink(text_event(text));
    submitted.sink(text_event("", FinishReason::kStop));
  });
  const std::string thinking = R"("chat_template_kwargs":{"thinking":true})";
  const Json json = json_of(post(kChat, chat_body(thinking)));
  const Json* message = json.find("choices")->as_array()->at(0).find("message");
  EXPECT_EQ(*message->find("reasoning_content")->as_string(), "so");
  EXPECT_EQ(*message->find("content")->as_string(), "yes");
  EXPECT_GT(
      json.find("usage")->find("completion_tokens_details")->find("reasoning_tokens")->as_int(), 0);
  const auto events = events_of(post(kChat, chat_body(thinking + ",\"stream\":true")).body);
  ASSERT_EQ(events.size(), 5U);
  EXPECT_THAT(events[1], HasSubstr(R"("delta":{"reasoning_content":"so"})"));
  EXPECT_THAT(events[2], HasSubstr(R"("delta":{"content":"yes"})"));
  const std::string hidden = post(kChat, chat_body(thinking + ",\"include_reasoning\":false")).body;
  EXPECT_THAT(hidden,
              HasSubstr(R"("message":{"role":"assistant","content":"yes","refusal":null})"));
}

TEST_F(ApiServerTest, GivesLogprobsInBothForms) {
  start();
  engine_.on_submit(answer_with("ab"));
  EXPECT_THAT(post(kChat, chat_body(R"("logprobs":true,"top_logprobs":1)")).body,
              HasSubstr(R"("logprobs":{"content":[{"token":"a","logprob":-0.5,"bytes":[97],)"
                        R"("top_logprobs":[{"token":"a")"));
  EXPECT_THAT(post(kCompletions, R"({"prompt":"x","logprobs":1})").body,
              HasSubstr(R"("logprobs":{"text_offset":[0,1],"token_logprobs":[-0.5,-0.5],)"));
  EXPECT_EQ(engine_.wait_for_request(0).request.sampling.logprobs, 1);
}

TEST_F(ApiServerTest, AnswersCompletionsForEveryPromptAndChoice) {
  start();
  engine_.on_submit(answer_with("!"));
  const Json json = json_of(post(kCompletions, R"({"prompt":["ab","cd"],"n":2,"echo":true})"));
  const Json::Array& choices = *json.find("choices")->as_array();
  ASSERT_EQ(choices.size(), 4U);
  EXPECT_EQ(*choices[1].find("text")->as_string(), "ab!");
  EXPECT_EQ(*choices[2].find("text")->as_string(), "cd!");
  EXPECT_EQ(choices[3].find("index")->as_int(), 3);
  EXPECT_EQ(json.find("usage")->find("prompt_tokens")->as_int(), 6);
}

TEST_F(ApiServerTest, TakesAndGivesTokenIds) {
  start();
  engine_.on_submit(answer_with("!"));
  const http::Response response =
      post(kCompletions, R"({"prompt":[104,105],"return_token_ids":true})");
  EXPECT_THAT(response.body, HasSubstr(R"("token_ids":[33],"prompt_token_ids":[104,105])"));
  EXPECT_EQ(engine_.wait_for_request(0).request.prompt_tokens,
            (std::vector<TokenId>{TokenId{104}, TokenId{105}}));
}

TEST_F(ApiServerTest, StreamsCompletions) {
  start();
  engine_.on_submit(answer_with("!"));
  const auto events =
      events_of(post(kCompletions, R"({"prompt":"ab","stream":true,"logprobs":0})").body);
  ASSERT_EQ(events.size(), 2U);
  EXPECT_THAT(events[0], HasSubstr(R"("object":"text_completion")"));
  EXPECT_THAT(events[0], HasSubstr(R"("text":"!")"));
}

TEST_F(ApiServerTest, ContinuesTheFinalMessage) {
  start();
  engine_.on_submit(answer_with("x"));
  const std::string body = R"({"messages":[{"role":"user","content":"q"},
      {"role":"assistant","content":"so far "}],"add_generation_prompt":false,
      "continue_final_message":true})";
  EXPECT_EQ(post(kChat, body).status, 200);
  EXPECT_EQ(byte_tokenizer().decode(engine_.wait_for_request(0).request.prompt_tokens),
            "[user]q[assistant]so far");
}

TEST_F(ApiServerTest, AnErrorBeforeTheFirstTokenHasAStatus) {
  start();
  engine::RequestEvent failed;
  failed.finish = FinishReason::kError;
  engine_.on_submit([&](const FakeEngine::Submitted& submitted) { submitted.sink(failed); });
  const auto expect = [&](ErrorCode code, bool retryable, int status, std::string_view name) {
    failed.error_code = code;
    failed.retryable = retryable;
    const http::Response response = post(kChat, chat_body("\"stream\":true"));
    EXPECT_EQ(response.status, status);
    EXPECT_EQ(error_code(response), name);
    EXPECT_EQ(response.headers.get("retry-after"), retryable ? "1" : "");
  };
  expect(ErrorCode::kDataLoss, false, 500, "engine_error");
  expect(ErrorCode::kInvalidArgument, false, 400, "invalid_request");
  expect(ErrorCode::kUnavailable, true, 503, "engine_unavailable");
  expect(ErrorCode::kPeerLost, true, 503, "rank_lost");
}

TEST_F(ApiServerTest, AnErrorInTheStreamIsAnEventBeforeTheEnd) {
  start();
  engine_.on_submit([](const FakeEngine::Submitted& submitted) {
    submitted.sink(text_event("a"));
    engine::RequestEvent failed;
    failed.finish = FinishReason::kError;
    failed.error = "rank lost";
    submitted.sink(failed);
  });
  const http::Response response = post(kChat, chat_body("\"stream\":true"));
  EXPECT_EQ(response.status, 200);
  const auto events = events_of(response.body);
  ASSERT_EQ(events.size(), 4U);
  EXPECT_THAT(events[2], StartsWith("{\"error\":{\"message\":\"rank lost\""));
  EXPECT_EQ(events[3], "[DONE]");
}

TEST_F(ApiServerTest, OneFailingChoiceEndsTheOthers) {
  start();
  std::promise<http::Response> answer;
  std::thread caller([&] { answer.set_value(post(kChat, chat_body("\"n\":2"))); });
  const auto second = engine_.wait_for_request(1);
  engine::RequestEvent failed;
  failed.finish = FinishReason::kError;
  second.sink(failed);
  EXPECT_EQ(answer.get_future().get().status, 500);
  EXPECT_TRUE(engine_.wait_for_cancels(1));
  caller.join();
}

TEST_F(ApiServerTest, AClientThatLeavesCancelsEveryChoice) {
  start();
  for (const std::string_view stream : {"true", "false"}) {
    RawClient raw = begin(kChat, chat_body(fmt::format("\"n\":2,\"stream\":{}", stream)));
    engine_.wait_for_request(stream == "true" ? 1 : 3);
    raw.close();
    EXPECT_TRUE(engine_.wait_for_cancels(stream == "true" ? 2 : 4));
  }
}

TEST_F(ApiServerTest, AClientThatDoesNotReadIsCutAndItsRequestCancelled) {
  ApiServerOptions options;
  options.http_limits.stream_buffer_bytes_max = 16 * 1024;
  start(std::move(options));
  RawClient raw = begin(kChat, chat_body("\"stream\":true"));
  const auto submitted = engine_.wait_for_request(0);
  // More than the kernel's buffers and ours hold.
  const engine::RequestEvent event = text_event(std::string(8 * 1024, 'x'));
  for (int i = 0; i < 2000; ++i)
    submitted.sink(event);
  EXPECT_TRUE(engine_.wait_for_cancels(1));
}

TEST_F(ApiServerTest, KeepsSilentStreamsAlive) {
  ApiServerOptions options;
  options.ping_interval = milliseconds(5);
  start(std::move(options));
  RawClient raw = begin(kChat, chat_body("\"stream\":true"));
  const auto submitted = engine_.wait_for_request(0);
  EXPECT_THAT(raw.receive_until(": ping\n\n"), HasSubstr("text/event-stream"));
  // The status has been sent: an error comes as an event now.
  engine::RequestEvent failed;
  failed.finish = FinishReason::kError;
  submitted.sink(failed);
  EXPECT_THAT(raw.receive_until("0\r\n\r\n"), HasSubstr("data: {\"error\":"));
}

TEST_F(ApiServerTest, RefusesBadRequestsByName) {
  start();
  EXPECT_EQ(post(kChat, "{").status, 400);
  EXPECT_EQ(error_code(post(kChat, "{")), "invalid_json");
  EXPECT_EQ(error_code(post(kChat, chat_body("\"n\":0"))), "invalid_value");
  EXPECT_EQ(error_code(post(kChat, chat_body("\"tools\":[{}]"))), "not_implemented");
  EXPECT_EQ(error_code(post(kChat, chat_body("\"model\":\"gpt\""))), "model_not_found");
  EXPECT_EQ(post(kChat, chat_body("\"model\":\"gpt\"")).status, 404);
  EXPECT_EQ(post(kCompletions, R"({"prompt":""})").status, 400);
  EXPECT_EQ(error_code(get("/v1/nothing")), "not_found");
  EXPECT_EQ(error_code(get(kChat)), "method_not_allowed");
  const http::Response template_refusal =
      post(kChat, R"({"messages":[{"role":"system","content":""}],
                 "chat_template_kwargs":{"no_system":true}})");
  EXPECT_THAT(template_refusal.body, HasSubstr("no system messages"));
}

TEST_F(ApiServerTest, SaysHowLongTheContextIs) {
  start();
  const http::Response prompt =
      post(kCompletions, "{\"prompt\":\"" + std::string(1000, 'x') + "\"}");
  EXPECT_EQ(error_code(prompt), "context_length_exceeded");
  EXPECT_THAT(prompt.body, HasSubstr("The context holds 1000 tokens; 1001 were asked for"));
  EXPECT_EQ(error_code(post(kChat, chat_body("\"max_tokens\":1000"))), "context_length_exceeded");
  EXPECT_EQ(error_code(post(kChat, chat_body("\"max_tokens\":5,\"min_tokens\":6"))),
            "invalid_value");
}

TEST_F(ApiServerTest, TellsWhenItsQueueIsFull) {
  start();
  engine::EngineStats full;
  full.num_waiting = 8;
  engine_.set_stats(full);
  const http::Response early = post(kChat, chat_body());
  EXPECT_EQ(early.status, 429);
  EXPECT_EQ(error_code(early), "engine_overloaded");
  EXPECT_EQ(early.headers.get("retry-after"), "1");
  engine_.set_stats({});
  engine_.refuse(Error{ErrorCode::kExhausted, "full"});
  EXPECT_EQ(post(kChat, chat_body("\"stream\":true")).status, 429);
  EXPECT_THAT(get("/metrics").body, HasSubstr("vllm:admission_rejections_total"));
}

TEST_F(ApiServerTest, CancelsTheChoicesBeforeOneThatIsRefused) {
  start();
  engine_.on_submit([this](const FakeEngine::Submitted&) {
    engine_.refuse(Error{ErrorCode::kInvalidArgument, "bad token"});
  });
  const http::Response response = post(kChat, chat_body("\"n\":2"));
  EXPECT_EQ(response.status, 400);
  EXPECT_THAT(response.body, HasSubstr("bad token"));
  EXPECT_TRUE(engine_.wait_for_cancels(1));
}

TEST_F(ApiServerTest, WantsAKeyForAllButHealth) {
  ApiServerOptions options;
  options.keys = *http::ApiKeys::load({"secret"}, "");
  start(std::move(options));
  for (const std::string_view path : {"/v1/models", "/metrics", "/load", "/nothing", "/%76ersion/x",
                                      "//metrics", "/health/../metrics"}) {
    const http::Response response = get(path);
    EXPECT_EQ(response.status, 401) << path;
    EXPECT_EQ(error_code(response), "invalid_api_key");
  }
  EXPECT_EQ(post(kChat, chat_body()).status, 401);
  for (const std::string_view path : {"/health", "/ready", "/live", "/ping", "/version"})
    EXPECT_EQ(get(path).status, 200) << path;
  const http::Headers right{{"Authorization", "Bearer secret"}};
  EXPECT_EQ(call("GET", "/v1/models", {}, right).status, 200);
  const http::Headers wrong{{"Authorization", "Bearer Secret"}};
  EXPECT_EQ(call("GET", "/v1/models", {}, wrong).status, 401);
}

TEST_F(ApiServerTest, ServesMetricsOnAnAddressOfTheirOwn) {
  ApiServerOptions options;
  options.keys = *http::ApiKeys::load({"secret"}, "");
  start(std::move(options));
  address_ = *server_->listen_metrics({"127.0.0.1", 0, {}});
  EXPECT_EQ(get("/metrics").status, 200);
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_EQ(get("/v1/models").status, 404);
}

TEST_F(ApiServerTest, IsHealthyOnlyWhileTheEngineSteps) {
  EngineHealth engine;
  std::mutex mutex;
  ApiServerOptions options;
  options.progress_deadline = seconds(60);
  options.health = [&] {
    const std::scoped_lock lock(mutex);
    return engine;
  };
  start(std::move(options));
  EXPECT_EQ(get("/health").status, 200);
  {
    const std::scoped_lock lock(mutex);
    engine.step_age = seconds(61);
  }
  EXPECT_EQ(get("/health").status, 503);
  EXPECT_THAT(get("/ready").body, HasSubstr(R"({"status":"stuck","step_age_ms":61000})"));
  {
    const std::scoped_lock lock(mutex);
    engine = {.step_age = {}, .failure = Error{ErrorCode::kPeerLost, "rank 3"}};
  }
  EXPECT_THAT(get("/health").body, HasSubstr("failed"));
  EXPECT_EQ(get("/live").status, 200);
}

TEST_F(ApiServerTest, ListsItsModels) {
  start();
  const Json list = json_of(get("/v1/models"));
  EXPECT_EQ(list.find("data")->as_array()->size(), 2U);
  EXPECT_EQ(json_of(get("/v1/models/alias")).find("max_model_len")->as_int(), 1000);
  EXPECT_EQ(error_code(get("/v1/models/org%2Fother")), "model_not_found");
}

TEST_F(ApiServerTest, TokenizesAndBack) {
  start();
  EXPECT_EQ(post("/tokenize", R"({"prompt":"hi","return_token_strs":true})").body,
            R"({"count":2,"max_model_len":1000,"tokens":[104,105],"token_strs":["h","i"]})");
  EXPECT_EQ(json_of(post("/tokenize", chat_body())).find("count")->as_int(),
            static_cast<int64_t>(std::string_view("[user]hi\n[assistant]").size()));
  EXPECT_EQ(post("/detokenize", R"({"tokens":[104,105]})").body, R"({"prompt":"hi"})");
  EXPECT_EQ(post("/detokenize", R"({"tokens":[2000000]})").status, 400);
}

TEST_F(ApiServerTest, CountsWhatItDoesUnderVllmsNames) {
  start();
  engine::EngineStats stats;
  stats.num_running = 2;
  stats.num_waiting = 3;
  stats.kv_cache_usage = 0.5;
  stats.prompt_tokens = 40;
  engine_.set_stats(stats);
  engine_.on_submit(answer_with("abc"));
  post(kChat, chat_body());
  const http::Response response = get("/metrics");
  EXPECT_EQ(response.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  const std::string labels = R"({model_name="toy",engine="0")";
  EXPECT_THAT(response.body, HasSubstr("vllm:num_requests_running" + labels + "} 2\n"));
  EXPECT_THAT(response.body, HasSubstr("vllm:num_requests_waiting" + labels + "} 3\n"));
  EXPECT_THAT(response.body, HasSubstr("vllm:kv_cache_usage_perc" + labels + "} 0.5\n"));
  EXPECT_THAT(response.body, HasSubstr("vllm:prompt_tokens_total" + labels + "} 40\n"));
  EXPECT_THAT(response.body,
              HasSubstr("vllm:request_success_total" + labels + ",finished_reason=\"stop\"} 1\n"));
  EXPECT_THAT(response.body,
              HasSubstr("vllm:time_to_first_token_seconds_count" + labels + "} 1\n"));
  EXPECT_THAT(response.body, HasSubstr("block_size=\"16\",num_gpu_blocks=\"10\""));
  EXPECT_THAT(response.body, HasSubstr(R"(http_requests_total{handler="/v1/chat/completions",)"
                                       R"(method="POST",status="200"} 1)"));
  EXPECT_EQ(json_of(get("/load")).find("server_load")->as_int(), 5);
}

TEST_F(ApiServerTest, DrainsWithoutCuttingStreams) {
  start();
  RawClient raw = begin(kChat, chat_body("\"stream\":true"));
  const auto submitted = engine_.wait_for_request(0);
  submitted.sink(text_event("a"));
  raw.receive_until("\"content\":\"a\"");
  EXPECT_EQ(get("/ready").status, 200);
  std::thread drainer([&] { server_->drain_and_wait(seconds(20)); });
  while (get("/ready").status == 200) {
  }
  // The address stays open as long as the stream runs.
  EXPECT_THAT(get("/ready").body, HasSubstr("draining"));
  const http::Response refused = post(kChat, chat_body());
  EXPECT_EQ(refused.status, 503);
  EXPECT_NE(refused.headers.get("retry-after"), "");
  RawClient idle(address_);
  idle.send("GET /live HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(idle.receive_answer(), StartsWith("HTTP/1.1 200 "));
  submitted.sink(text_event("b", FinishReason::kStop));
  const std::string rest = raw.receive_all();
  EXPECT_THAT(rest, HasSubstr("\"content\":\"b\""));
  EXPECT_THAT(rest, HasSubstr("data: [DONE]"));
  idle.receive_all();
  EXPECT_TRUE(idle.was_closed());
  drainer.join();
}

TEST_F(ApiServerTest, TellsWhenToComeBackByHowFastTheQueueEmpties) {
  start();
  engine::EngineStats stats;
  stats.num_waiting = engine_.options_.max_num_queued_reqs;
  stats.num_queued_tokens = 40 * engine_.options_.max_num_batched_tokens;
  stats.last_step_end = stats.last_step_start + milliseconds(250);
  engine_.set_stats(stats);
  EXPECT_EQ(post(kChat, chat_body()).headers.get("retry-after"), "1");  // no step seen yet
  server_->on_step(stats);
  const http::Response full = post(kChat, chat_body());
  EXPECT_EQ(full.status, 429);
  EXPECT_EQ(full.headers.get("retry-after"), "10");
}

TEST_F(ApiServerTest, CancelsWhatRunsWhenItEnds) {
  start();
  const RawClient raw = begin(kChat, chat_body("\"stream\":true"));
  const auto submitted = engine_.wait_for_request(0);
  server_.reset();
  EXPECT_TRUE(engine_.wait_for_cancels(1));
  submitted.sink(text_event("late", FinishReason::kStop));
}

TEST_F(ApiServerTest, TakesOnlyItsOwnKindOfRequestId) {
  start();
  for (const std::string& id : {std::string(129, 'a'), std::string("a b"), std::string("\xFF")}) {
    const http::Response response = call("GET", "/v1/models", {}, {{"x-request-id", id}});
    EXPECT_EQ(response.status, 200);
    engine_.on_submit(answer_with("x"));
    const http::Response chat = call("POST", kChat, chat_body(), {{"x-request-id", id}});
    EXPECT_EQ(chat.headers.get("x-request-id").size(), 32U);
  }
}

TEST_F(ApiServerTest, ServesOverAUnixSocket) {
  start();
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("wd-api-{}.sock", ::getpid())).string();
  address_ = net::Address::unix_socket(path);
  ASSERT_TRUE(server_->listen(address_));
  EXPECT_EQ(get("/version").body, R"({"version":"1.2.3"})");
}

}  // namespace
}  // namespace wideep::server
