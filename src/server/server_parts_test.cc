// The parts of the server that need no socket: choices, prompts, engine requests, the mailbox.
#include "server/choice.h"
#include "server/engine_request.h"
#include "server/event_mailbox.h"
#include "server/fake_engine.h"
#include "server/generation_call.h"
#include "server/prompt_builder.h"
#include "server/queue_estimate.h"
#include "server/server_metrics.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <limits>
#include <string>
#include <vector>

namespace wideep::server {
namespace {

using engine::FinishReason;

engine::RequestEvent held_back(std::string_view bytes) {
  engine::RequestEvent event = text_event(bytes);
  event.text.clear();
  return event;
}

TEST(Choice, TokensWithoutTextWaitForTheText) {
  Choice choice(byte_tokenizer(), {.with_logprobs = true, .with_token_ids = true});
  EXPECT_FALSE(choice.take(held_back("\xE2\x82")));
  engine::RequestEvent rest = text_event("\xAC");
  rest.text = "\xE2\x82\xAC";
  const auto part = choice.take(rest);
  ASSERT_TRUE(part);
  EXPECT_EQ(part->text, "\xE2\x82\xAC");
  EXPECT_EQ(part->token_ids->size(), 3U);
  EXPECT_EQ(part->logprobs->at(0).chosen.bytes, "\xE2");
  EXPECT_EQ(part->text_offset, 0);
  EXPECT_EQ(choice.take(text_event("x"))->text_offset, 1);  // in characters
}

TEST(Choice, TheLastEventAlwaysGivesAPart) {
  Choice choice(byte_tokenizer(), {.index = 4, .with_logprobs = true});
  choice.take(held_back("a"));
  const auto part = choice.take(text_event("", FinishReason::kLength));
  ASSERT_TRUE(part);
  EXPECT_EQ(part->index, 4);
  EXPECT_EQ(part->finish_reason, "length");
  EXPECT_EQ(part->logprobs->size(), 1U);  // what was held back is not lost
  EXPECT_TRUE(choice.is_finished());
}

TEST(Choice, SaysWhatStoppedIt) {
  engine::RequestEvent by_text = text_event("", FinishReason::kStop);
  by_text.stop_reason = "END";
  Choice first(byte_tokenizer(), {});
  EXPECT_EQ(std::get<std::string>(first.take(by_text)->stop_reason), "END");
  engine::RequestEvent by_token = text_event("", FinishReason::kStop);
  by_token.stop_token = TokenId{7};
  Choice second(byte_tokenizer(), {});
  EXPECT_EQ(std::get<TokenId>(second.take(by_token)->stop_reason), TokenId{7});
}

TEST(Choice, EchoStandsBeforeTheTextAndCountsInOffsets) {
  Choice choice(byte_tokenizer(), {.with_logprobs = true, .echo = "\xC3\xA4z"});
  const auto part = choice.take(text_event("x"));
  EXPECT_EQ(part->text, "\xC3\xA4zx");
  EXPECT_EQ(part->text_offset, 2);
}

TEST(Choice, PartsAddUpToTheWhole) {
  Choice choice(byte_tokenizer(), {.with_logprobs = true, .with_token_ids = true});
  api::ChoicePart whole;
  append(whole, *choice.take(text_event("ab")));
  append(whole, *choice.take(text_event("c", FinishReason::kStop)));
  EXPECT_EQ(whole.text, "abc");
  EXPECT_EQ(whole.logprobs->size(), 3U);
  EXPECT_EQ(whole.token_ids->size(), 3U);
  EXPECT_EQ(whole.finish_reason, "stop");
  EXPECT_EQ(whole.text_offset, 0);
}

api::ChatFields chat_of(std::string_view last_content, bool go_on) {
  api::ChatFields chat;
  chat.messages.push_back({.role = "developer", .content = "be nice"});
  chat.messages.push_back({.role = "assistant", .content = std::string(last_content)});
  chat.add_generation_prompt = !go_on;
  chat.continue_final_message = go_on;
  return chat;
}

constexpr int64_t kContext = 100;

TEST(PromptBuilder, RefusesTextThatCannotFitBeforeItIsTokenized) {
  const PromptBuilder prompts(byte_tokenizer(), render_simple_chat, kContext);
  EXPECT_TRUE(prompts.build(std::string(4 * kContext, 'x'), true, false));
  const auto prompt = prompts.build(std::string(4 * kContext + 1, 'x'), true, false);
  ASSERT_FALSE(prompt);
  EXPECT_EQ(prompt.error().code, "context_length_exceeded");
  const auto chat = prompts.build(chat_of(std::string(4 * kContext, 'x'), false));
  EXPECT_EQ(chat.error().code, "context_length_exceeded");
}

TEST(PromptBuilder, CallsADeveloperSystem) {
  const PromptBuilder prompts(byte_tokenizer(), render_simple_chat, kContext);
  const auto prompt = prompts.build(chat_of("x", false));
  ASSERT_TRUE(prompt);
  EXPECT_EQ(byte_tokenizer().decode(prompt->tokens), "[system]be nice[assistant]x\n[assistant]");
}

TEST(PromptBuilder, CutsWhatTheTemplateWroteBehindAFinalMessage) {
  const PromptBuilder prompts(byte_tokenizer(), render_simple_chat, kContext);
  const auto prompt = prompts.build(chat_of("so far\n", true));
  ASSERT_TRUE(prompt);
  EXPECT_EQ(byte_tokenizer().decode(prompt->tokens), "[system]be nice[assistant]so far");
  EXPECT_FALSE(prompts.build(chat_of("", true)));
}

TEST(PromptBuilder, OnlyTheTemplateOpensReasoning) {
  const PromptBuilder prompts(byte_tokenizer(), render_simple_chat, kContext);
  api::ChatFields chat = chat_of("<think>", true);
  EXPECT_EQ(prompts.build(chat)->reasoning, ThinkSplitter::Start::kUnknown);
  chat = chat_of("x", false);
  chat.template_kwargs.set("thinking", true);
  EXPECT_EQ(prompts.build(chat)->reasoning, ThinkSplitter::Start::kReasoning);
}

TEST(PromptBuilder, RefusesChatsWithoutATemplate) {
  const PromptBuilder prompts(byte_tokenizer(), nullptr, kContext);
  EXPECT_EQ(prompts.build(chat_of("x", false)).error().code, "not_implemented");
}

TEST(EngineRequest, ChoicesOfTheLargestSeedWrapAround) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(seed_of_choice(5, 2), 7);
  EXPECT_EQ(seed_of_choice(kMax, 1), std::numeric_limits<int64_t>::min());
  EXPECT_GE(draw_seed(), 0);
}

TEST(EngineRequest, AContextThatIsFullHasNoRoom) {
  const model::GenerationConfig defaults;
  const RequestContext context{
      .endpoint = Endpoint::kChat, .defaults = defaults, .max_model_len = 10};
  EXPECT_FALSE(make_engine_request({}, 10, context));
  EXPECT_EQ(make_engine_request({}, 9, context)->stop.max_tokens, 1);
  model::GenerationConfig capped;
  capped.max_new_tokens = 3;
  const RequestContext with_cap{
      .endpoint = Endpoint::kChat, .defaults = capped, .max_model_len = 10};
  EXPECT_EQ(make_engine_request({}, 2, with_cap)->stop.max_tokens, 3);
}

class RecordingReceiver : public EventReceiver {
 public:
  void on_event(size_t choice_index, const engine::RequestEvent& event) override {
    seen += std::to_string(choice_index) + event.text;
  }

  std::string seen;
};

TEST(EventMailbox, DeliversInOrderOnTheLoopAndNothingAfterItIsClosed) {
  net::EventLoop loop;
  const auto mailbox = std::make_shared<EventMailbox>(loop);
  const auto receiver = std::make_shared<RecordingReceiver>();
  mailbox->push(receiver, 0, text_event("a"));
  mailbox->push(receiver, 1, text_event("b"));
  EXPECT_EQ(receiver->seen, "");
  loop.post([&] {
    mailbox->push(receiver, 2, text_event("c"));
    mailbox->close();
    mailbox->push(receiver, 3, text_event("d"));
    loop.post([&] { loop.stop(); });
  });
  loop.run();
  EXPECT_EQ(receiver->seen, "0a1b");
  EXPECT_EQ(receiver.use_count(), 1);
}

TEST(ServerMetrics, CountersGrowByWhatTheEngineAdded) {
  ServerMetrics metrics("m", "0", {.max_model_len = 100});
  engine::EngineStats stats;
  stats.generated_tokens = 5;
  metrics.render(stats);
  stats.generated_tokens = 7;
  EXPECT_THAT(
      metrics.render(stats),
      ::testing::HasSubstr("vllm:generation_tokens_total{model_name=\"m\",engine=\"0\"} 7\n"));
}

TEST(ServerMetrics, PartsAddUpToTheWhole) {
  ServerMetrics metrics("m", "0", {.max_model_len = 100});
  engine::EngineStats stats;
  stats.num_waiting = 5;
  stats.num_deferred = 2;
  stats.prompt_tokens = 100;
  stats.prompt_tokens_cached = 30;
  stats.prompt_tokens_pulled = 20;
  const std::string text = metrics.render(stats);
  const auto expect = [&](std::string_view name, std::string_view label, int value) {
    EXPECT_THAT(text, ::testing::HasSubstr(fmt::format(
                          "{}{{model_name=\"m\",engine=\"0\",{}}} {}\n", name, label, value)));
  };
  expect("vllm:num_requests_waiting_by_reason", "reason=\"capacity\"", 3);
  expect("vllm:num_requests_waiting_by_reason", "reason=\"deferred\"", 2);
  expect("vllm:prompt_tokens_by_source_total", "source=\"local_compute\"", 50);
  expect("vllm:prompt_tokens_by_source_total", "source=\"local_cache_hit\"", 30);
  expect("vllm:prompt_tokens_by_source_total", "source=\"external_kv_transfer\"", 20);
  expect("vllm:engine_sleep_state", "sleep_state=\"awake\"", 1);
  expect("vllm:engine_sleep_state", "sleep_state=\"discard_all\"", 0);
}

// The names that dashboards and pickers read (vLLM's), all there before the first request.
TEST(ServerMetrics, AllOfVllmsNamesAreThereFromTheStart) {
  ServerMetrics metrics("m", "0", {.max_model_len = 100});
  const std::string text = metrics.render({});
  for (const std::string_view name : {"num_requests_running",
                                      "num_requests_waiting",
                                      "num_requests_waiting_by_reason",
                                      "engine_sleep_state",
                                      "kv_cache_usage_perc",
                                      "cache_config_info",
                                      "lora_requests_info",
                                      "prefix_cache_queries_total",
                                      "prefix_cache_hits_total",
                                      "external_prefix_cache_queries_total",
                                      "external_prefix_cache_hits_total",
                                      "mm_cache_queries_total",
                                      "mm_cache_hits_total",
                                      "corrupted_requests_total",
                                      "num_preemptions_total",
                                      "prompt_tokens_total",
                                      "generation_tokens_total",
                                      "prompt_tokens_by_source_total",
                                      "prompt_tokens_cached_total",
                                      "request_success_total",
                                      "request_prompt_tokens",
                                      "request_generation_tokens",
                                      "request_max_num_generation_tokens",
                                      "request_params_max_tokens",
                                      "request_prefill_kv_computed_tokens",
                                      "request_params_n",
                                      "iteration_tokens_total",
                                      "time_to_first_token_seconds",
                                      "inter_token_latency_seconds",
                                      "request_time_per_output_token_seconds",
                                      "time_per_output_token_seconds",
                                      "e2e_request_latency_seconds",
                                      "request_queue_time_seconds",
                                      "request_inference_time_seconds",
                                      "request_prefill_time_seconds",
                                      "request_decode_time_seconds",
                                      "spec_decode_num_drafts_total",
                                      "spec_decode_num_draft_tokens_total",
                                      "spec_decode_num_accepted_tokens_total",
                                      "spec_decode_num_accepted_tokens_per_pos_total"})
    EXPECT_THAT(text, ::testing::HasSubstr(fmt::format("# TYPE vllm:{} ", name)));
}

TEST(QueueEstimate, IsTheLongerOfThePromptsAheadAndTheWaitForAPlace) {
  QueueEstimate queue;
  const engine::EngineOptions options{.max_num_seqs = 4, .max_num_batched_tokens = 100};
  engine::EngineStats stats;
  stats.num_waiting = 8;
  stats.num_queued_tokens = 2'000;
  EXPECT_EQ(queue.retry_after_s(stats, options), 1);  // knows nothing yet
  queue.on_step(std::chrono::milliseconds(150));
  EXPECT_EQ(queue.retry_after_s(stats, options), 3);  // 20 steps
  queue.on_request(std::chrono::seconds(6));
  EXPECT_EQ(queue.retry_after_s(stats, options), 12);  // 8 requests, 4 at a time
  queue.on_request(std::chrono::hours(1));
  EXPECT_EQ(queue.retry_after_s(stats, options), QueueEstimate::kSecondsMax);
}

TEST(ServerMetrics, TellWhatSpeculationGains) {
  ServerMetrics metrics("m", "0", {.max_model_len = 100});
  engine::EngineStats stats;
  stats.num_drafts = 4;
  stats.num_accepted_tokens = 3;
  const std::string text = metrics.render(stats);
  const std::string labels = "{model_name=\"m\",engine=\"0\"}";
  EXPECT_THAT(text, ::testing::HasSubstr("vllm:spec_decode_num_drafts_total" + labels + " 4\n"));
  EXPECT_THAT(text,
              ::testing::HasSubstr("vllm:spec_decode_num_accepted_tokens_total" + labels + " 3\n"));
}

TEST(ServerMetrics, TellHowManyBytesOfExpertsWereRead) {
  ServerMetrics metrics("m", "0", {.max_model_len = 100});
  engine::EngineStats stats;
  stats.expert_bytes_read = 300;
  metrics.render(stats);
  stats.expert_bytes_read = 500;
  EXPECT_THAT(
      metrics.render(stats),
      ::testing::HasSubstr("wideep:expert_bytes_read_total{model_name=\"m\",engine=\"0\"} 500\n"));
}

TEST(ServerMetrics, MethodsThatNobodyRoutesAreOneSeries) {
  ServerMetrics metrics("m", "0", {.max_model_len = 100});
  for (const std::string_view method : {"BREW", "CHURN"})
    metrics.on_answered({.method = method, .status = 405});
  EXPECT_THAT(
      metrics.render({}),
      ::testing::HasSubstr(R"(http_requests_total{handler="none",method="other",status="405"} 2)"));
}

TEST(ErrorResponse, CarriesTheHeadersThatClientsActOn) {
  const http::Response busy = error_response(api::overloaded("x", "y", 3));
  EXPECT_EQ(busy.headers.get("retry-after"), "3");
  EXPECT_EQ(error_response(api::invalid_api_key()).headers.get("www-authenticate"), "Bearer");
}

}  // namespace
}  // namespace wideep::server
