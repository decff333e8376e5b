// An engine over the fake model (or any other), and what its requests gave: for tests.
#pragma once

#include "base/random.h"
#include "base/test_clock.h"
#include "engine/engine.h"
#include "engine/fake_model.h"
#include "tokenizer/small_tokenizer_test.h"
#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace wideep::engine {

// Everything that a client could see of one request.
struct Outcome {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;
  std::vector<TokenId> alternatives;
  std::string text;
  std::vector<std::string> texts;  // per event that had tokens
  std::optional<FinishReason> finish;
  RequestEvent last;

  // The same to a client, whatever way it took.
  bool operator==(const Outcome& other) const {
    return tokens == other.tokens && logprobs == other.logprobs &&
           alternatives == other.alternatives && text == other.text && finish == other.finish;
  }

  void add(const RequestEvent& event) {
    EXPECT_FALSE(finish) << "an event after the last";
    for (const GeneratedToken& token : event.tokens) {
      tokens.push_back(token.token);
      logprobs.push_back(token.logprob);
      for (const TokenLogprob& entry : token.top)
        alternatives.push_back(entry.token);
    }
    text += event.text;
    if (!event.tokens.empty()) texts.push_back(event.text);
    finish = event.finish;
    last = event;
  }
};

// One token for each byte.
inline const tokenizer::Tokenizer& byte_tokenizer() {
  static const auto tokenizer =
      tokenizer::Tokenizer::from_json(tokenizer::small_tokenizer(tokenizer::small_model({})), {})
          .value();
  return *tokenizer;
}

inline std::vector<TokenId> random_tokens(uint64_t seed, int64_t count, int64_t vocab = 256) {
  Random random(seed);
  std::vector<TokenId> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(TokenId{static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab)))});
  return tokens;
}

// Sampled, with penalties and alternatives: everything that state could change.
inline Request sampled_request(uint64_t seed, int64_t prompt, int64_t max_tokens) {
  Request request;
  request.prompt_tokens = random_tokens(seed, prompt);
  request.sampling = {.temperature = 0.8F,
                      .top_p = 0.95F,
                      .repetition_penalty = 1.1F,
                      .frequency_penalty = 0.2F,
                      .seed = static_cast<int64_t>(seed),
                      .logprobs = 2};
  request.stop.max_tokens = max_tokens;
  return request;
}

struct TestEngine {
  explicit TestEngine(const EngineOptions& options = small_options(),
                      FakeModelOptions model_options = {})
      : model(std::move(model_options)) {
    auto created = Engine::create(model, &byte_tokenizer(), clock, options);
    EXPECT_TRUE(created) << created.error().message;
    engine = *std::move(created);
  }

  static EngineOptions small_options() {
    return {
        .max_num_seqs = 8, .max_num_batched_tokens = 64, .block_size = 16, .num_kv_blocks = 200};
  }

  // The outcome fills as steps are run; it lives as long as this.
  Outcome& submit(Request request) {
    outcomes.push_back(std::make_unique<Outcome>());
    Outcome& outcome = *outcomes.back();
    const auto id =
        engine->submit(std::move(request), [&](const RequestEvent& event) { outcome.add(event); });
    EXPECT_TRUE(id) << id.error().message;
    if (id) last_id = *id;
    return outcome;
  }

  void run() {
    for (int64_t steps = 0; engine->has_work(); ++steps) {
      ASSERT_LT(steps, 100000) << "no end";
      ASSERT_TRUE(engine->step(all_to_all));
    }
  }

  // Alone, from start to end.
  Outcome generate(Request request) {
    Outcome& outcome = submit(std::move(request));
    run();
    return outcome;
  }

  TestClock clock;
  FakeModel model;
  FakeAllToAll all_to_all;
  std::unique_ptr<Engine> engine;
  std::vector<std::unique_ptr<Outcome>> outcomes;
  SequenceId last_id{};
};

}  // namespace wideep::engine
