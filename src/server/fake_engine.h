// For tests: an engine that does what its script says, and the parts around it that a server needs.
#pragma once

#include "engine/engine.h"
#include "server/server_options.h"
#include "tokenizer/small_tokenizer_test.h"
#include "tokenizer/tokenizer.h"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace wideep::server {

// Requests wait until the test emits their events, from whatever thread. Thread: any.
class FakeEngine : public engine::Engine {
 public:
  struct Submitted {
    SequenceId id{};
    engine::Request request;
    engine::EventSink sink;
  };

  Result<SequenceId> submit(engine::Request request, engine::EventSink sink) override {
    std::unique_lock lock(mutex_);
    if (refuse_with_) return std::unexpected(*refuse_with_);
    const auto id = static_cast<SequenceId>(++last_id_);
    const Submitted submitted{id, std::move(request), counted(std::move(sink))};
    submitted_.push_back(submitted);
    ++num_unfinished_;
    changed_.notify_all();
    const auto on_submit = on_submit_;
    lock.unlock();
    if (on_submit) on_submit(submitted);
    return id;
  }

  // Ends the sequence as the engine would.
  void cancel(SequenceId sequence) override {
    engine::EventSink sink;
    {
      const std::scoped_lock lock(mutex_);
      cancelled_.push_back(sequence);
      for (const Submitted& submitted : submitted_) {
        if (submitted.id == sequence) sink = submitted.sink;
      }
      changed_.notify_all();
    }
    engine::RequestEvent event;
    event.finish = engine::FinishReason::kAbort;
    if (sink) sink(event);
  }

  void drain() override { refuse(Error{ErrorCode::kUnavailable, "The server is shutting down."}); }

  Status step(ep::AllToAll&) override { return {}; }

  bool has_work() const override { return false; }

  void wait_for_work(Duration) override {}

  void wake() override {}

  void set_waker(std::function<void()>) override {}

  void fail_all(const Error&) override {}

  int64_t num_unfinished() const override { return num_unfinished_; }

  engine::EngineStats stats() const override {
    const std::scoped_lock lock(mutex_);
    return stats_;
  }

  const engine::EngineOptions& options() const override { return options_; }

  // What the test does.

  void refuse(std::optional<Error> error) {
    const std::scoped_lock lock(mutex_);
    refuse_with_ = std::move(error);
  }

  void set_stats(const engine::EngineStats& stats) {
    const std::scoped_lock lock(mutex_);
    stats_ = stats;
  }

  // Called from submit(), e.g. to answer at once.
  void on_submit(std::function<void(const Submitted&)> action) {
    const std::scoped_lock lock(mutex_);
    on_submit_ = std::move(action);
  }

  // The i-th request ever submitted; waits for it.
  Submitted wait_for_request(size_t i) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [&] { return submitted_.size() > i; });
    return submitted_.at(i);
  }

  // Whether that many cancels came in time.
  bool wait_for_cancels(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return cancelled_.size() >= count; });
  }

  engine::EngineOptions options_{
      .max_model_len = 1000, .block_size = 16, .num_kv_blocks = 10, .max_num_queued_reqs = 8};

 private:
  static constexpr std::chrono::seconds kPatience{60};

  // The sink, noting the request's first last event.
  engine::EventSink counted(engine::EventSink sink) {
    const auto finished = std::make_shared<std::atomic<bool>>(false);
    return [this, finished, sink = std::move(sink)](const engine::RequestEvent& event) {
      sink(event);
      if (event.finish && !finished->exchange(true)) --num_unfinished_;
    };
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Submitted> submitted_;
  std::vector<SequenceId> cancelled_;
  std::optional<Error> refuse_with_;
  std::function<void(const Submitted&)> on_submit_;
  engine::EngineStats stats_;
  int64_t last_id_ = 0;
  std::atomic<int64_t> num_unfinished_{0};
};

// An event with one token for each byte of `text`.
inline engine::RequestEvent text_event(std::string_view text,
                                       std::optional<engine::FinishReason> finish = {}) {
  engine::RequestEvent event;
  for (const char c : text) {
    const TokenId token{static_cast<unsigned char>(c)};
    event.tokens.push_back({.token = token, .logprob = -0.5F, .top = {{token, -0.5F}}});
  }
  event.text = text;
  event.finish = finish;
  event.usage = {.prompt_tokens = 3,
                 .cached_tokens = 1,
                 .generated_tokens = static_cast<int64_t>(text.size())};
  return event;
}

// Answers every request with `text` at once.
inline std::function<void(const FakeEngine::Submitted&)> answer_with(std::string text) {
  return [text = std::move(text)](const FakeEngine::Submitted& submitted) {
    submitted.sink(text_event(text, engine::FinishReason::kStop));
  };
}

// One token for each byte; control tokens 256 "<eos>" and up.
inline const tokenizer::Tokenizer& byte_tokenizer() {
  static const auto tokenizer =
      tokenizer::Tokenizer::from_json(tokenizer::small_tokenizer(tokenizer::small_model({})), {})
          .value();
  return *tokenizer;
}

// "[role]content" for each message, then "[assistant]"; with thinking: true also "<think>\n".
inline Result<std::vector<tokenizer::TextSegment>> render_simple_chat(const Json& variables) {
  using tokenizer::TextOrigin;
  std::vector<tokenizer::TextSegment> segments;
  for (const Json& message : *variables.find("messages")->as_array()) {
    const std::string& role = *message.find("role")->as_string();
    if (role == "system" && variables.find("no_system") != nullptr) {
      return invalid_argument("no system messages");
    }
    segments.push_back({"[" + role + "]", TextOrigin::kTemplate});
    const std::string* content = message.find("content")->as_string();
    segments.push_back({content == nullptr ? "" : *content, TextOrigin::kContent});
  }
  std::string end = "\n";
  if (variables.find("add_generation_prompt")->as_bool() == true) end += "[assistant]";
  const Json* thinking = variables.find("thinking");
  if (thinking != nullptr && thinking->as_bool() == true) end += "<think>\n";
  segments.push_back({end, TextOrigin::kTemplate});
  return segments;
}

}  // namespace wideep::server
