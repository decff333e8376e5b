// The server's figures under vLLM's names, types and buckets, so that its dashboards and every
// endpoint picker read them unchanged.
//
// Thread: on_* from any; render() takes a snapshot of the engine with it.
#pragma once

#include "base/metrics.h"
#include "engine/engine.h"
#include "http/server.h"

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace wideep::server {

// When the answer's parts came, as one choice saw them.
struct TokenTimes {
  TimePoint arrival{};     // the request, at this server
  TimePoint last_event{};  // the last tokens
  int64_t num_tokens = 0;
};

class ServerMetrics {
 public:
  ServerMetrics(std::string_view model_name,
                std::string_view engine_label,
                const engine::EngineOptions& options);
  ~ServerMetrics();

  // A step produced `num_tokens` for a choice.
  void on_tokens(TokenTimes& times, int64_t num_tokens, TimePoint now);

  // A choice has ended; `params` as they were asked for.
  struct Finished {
    engine::FinishReason reason;
    engine::RequestUsage usage;
    engine::RequestTiming timing;
    int64_t max_tokens = 0;
    int64_t n = 1;
  };

  void on_finished(const TokenTimes& times, const Finished& finished, TimePoint now);
  // A step of the engine has ended.
  void on_step(const engine::EngineStats& stats);
  void on_rejected(std::string_view reason);
  void on_answered(const http::AccessRecord& record);

  std::string render(const engine::EngineStats& stats);

 private:
  struct Series;
  void update(const engine::EngineStats& stats);

  MetricsRegistry registry_;
  MetricLabels labels_;  // of every vllm: series
  std::unique_ptr<Series> series_;
  std::mutex mutex_;  // guards the engine's last snapshot: counters grow by the difference
  engine::EngineStats last_;
  std::string text_;  // kept, so that a scrape allocates little
};

}  // namespace wideep::server
