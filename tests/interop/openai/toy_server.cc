// A server with everything real but the model: HTTP, API, engine, tokenizer (one token for each
// byte). The model's logits are hashes; logit_bias and allowed_token_ids make it say what a test
// wants. Prompts that end with byte 1 give it a NaN.
//   toy_server [API key]
// Prints "listening ADDRESS" and serves until SIGTERM, then drains.
#include "base/log.h"
#include "engine/engine_loop.h"
#include "engine/fake_model.h"
#include "net/signals.h"
#include "server/api_server.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/small_tokenizer_test.h"

#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <future>
#include <string>

namespace wideep {
namespace {

constexpr std::string_view kTemplate =
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% if thinking %}<think>\n{% endif %}{% endif %}";

// Long enough that a generation never ends before a test has cancelled it, small enough a queue
// that a test can fill it.
const engine::EngineOptions kEngine{.max_model_len = 100'000,
                                    .max_num_seqs = 4,
                                    .max_num_batched_tokens = 256,
                                    .block_size = 16,
                                    .num_kv_blocks = 30'000,
                                    .max_num_queued_reqs = 8};

server::ApiServerOptions server_options(const engine::EngineLoop& loop, const char* key) {
  server::ApiServerOptions options;
  options.served_model_names = {"toy"};
  options.health = [&loop] {
    return server::EngineHealth{.step_age = loop.step_age(), .failure = loop.failure()};
  };
  if (key != nullptr) options.keys = *http::ApiKeys::load({key}, "");
  return options;
}

int run(const char* key) {
  engine::FakeModel model({.vocab_size = 256, .max_positions = kEngine.max_model_len});
  model.poison = TokenId{1};
  engine::FakeAllToAll all_to_all;
  const auto tokenizer =
      tokenizer::Tokenizer::from_json(tokenizer::small_tokenizer(tokenizer::small_model({})), {});
  const auto chat_template = tokenizer::ChatTemplate::parse(kTemplate);
  auto engine = engine::Engine::create(model, tokenizer->get(), real_clock(), kEngine);
  if (!engine || !chat_template) return 1;

  net::LoopThread thread;
  engine::EngineLoop loop(**engine, all_to_all, real_clock(), {});
  server::ApiServer server({.loop = thread.loop(),
                            .engine = **engine,
                            .tokenizer = **tokenizer,
                            .renderer = [&](const Json& v) { return chat_template->render(v); },
                            .clock = real_clock()},
                           server_options(loop, key));
  std::promise<void> terminated;
  const net::SignalWatcher signals(thread.loop(), {SIGTERM}, [&](int) { terminated.set_value(); });
  const auto address = server.listen({"127.0.0.1", 0, {}});
  if (!address) {
    log_error("{}", address.error().message);
    return 1;
  }
  std::fputs(fmt::format("listening {}\n", address->to_string()).c_str(), stdout);
  std::fflush(stdout);
  terminated.get_future().wait();
  server.drain_and_wait(std::chrono::seconds(30));
  return 0;
}

}  // namespace
}  // namespace wideep

int main(int argc, char** argv) {
  return wideep::run(argc > 1 ? argv[1] : nullptr);
}
