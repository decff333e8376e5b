// What an API server is told when it is made.
#pragma once

#include "api/requests.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/result.h"
#include "http/api_keys.h"
#include "http/server.h"
#include "model/config.h"
#include "tokenizer/text_segment.h"

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace wideep::server {

// Messages and variables to the text of a prompt; see tokenizer/chat_template.h.
using ChatRenderer =
    std::function<Result<std::vector<tokenizer::TextSegment>>(const Json& variables)>;

// How the engine is, for /health and /ready.
struct EngineHealth {
  Duration step_age{0};          // of the step that runs now; zero between steps
  std::optional<Error> failure;  // the engine will not step again
};

struct ApiServerOptions {
  std::vector<std::string> served_model_names;  // the first is the one that answers carry
  std::string model_root;                       // shown by /v1/models
  std::string engine_label = "0";               // of metrics: the data-parallel rank
  std::string version = "0";
  model::GenerationConfig defaults;  // where a request says nothing
  // Parts <think>...</think> of chat answers into reasoning_content.
  bool split_reasoning = true;
  api::RequestLimits request_limits;
  http::ServerLimits http_limits;
  http::ApiKeys keys;
  // Metrics without a key on the main address; they can have an address of their own instead.
  bool open_metrics = false;
  std::chrono::milliseconds ping_interval{15'000};  // comments in silent event streams
  int tokenizer_threads = 2;            // so that one huge prompt does not hold up the others
  size_t preparing_requests_max = 256;  // being parsed and tokenised; more get 429
  // A step that takes longer than this is stuck: /health says so.
  std::chrono::milliseconds progress_deadline{60'000};
  std::function<EngineHealth()> health;                 // any thread; not set: always well
  std::function<void(std::string& text)> more_metrics;  // appends to /metrics; any thread
  // The document at /expert_load, null or not set: there is none. Any thread.
  std::function<Json()> expert_load;
};

}  // namespace wideep::server
