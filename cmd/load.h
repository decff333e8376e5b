// The load generator: sends requests open- or closed-loop and measures what comes back.
#pragma once

#include "cmd/completion_call.h"
#include "net/event_loop.h"

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace wideep::cmd {

struct LoadOptions {
  ServerUrl server;
  std::string path = "/v1/completions";
  std::string api_key;
  double request_rate =
      std::numeric_limits<double>::infinity();  // per second; infinity: all at once
  double burstiness = 1.0;      // of the gaps: gamma with this shape; 1 is a Poisson process
  int64_t concurrency_max = 0;  // 0: no limit
  uint64_t seed = 0;
  std::chrono::milliseconds timeout{600'000};
};

struct LoadProgress {
  int64_t sent = 0;
  int64_t done = 0;
  int64_t failed = 0;
  int64_t output_tokens = 0;
};

struct LoadRun {
  std::vector<CompletionResult> results;  // in the order of the bodies
  double duration_s = 0;
};

// Sends every body; returns when all are answered. `on_progress` is called on the loop now and
// then. Not on the loop.
LoadRun run_load(net::EventLoop& loop,
                 http::Client& client,
                 const LoadOptions& options,
                 std::vector<Json> bodies,
                 const std::function<void(const LoadProgress&)>& on_progress);

// When request i is sent, in seconds from the start: cumulated gaps with mean 1 / rate.
std::vector<double> arrival_times(const LoadOptions& options, size_t num_requests);

// Service-level objectives in milliseconds; a request is good when it meets all that are set.
struct Goodput {
  std::optional<double> ttft;
  std::optional<double> tpot;
  std::optional<double> e2el;

  // "ttft:200", "tpot:50", "e2el:3000".
  static Result<Goodput> parse(const std::vector<std::string>& pairs);
};

// The result in the keys of `vllm bench serve`. Definitions: ttft from sending to the first text;
// tpot = (e2el - ttft) / (output tokens - 1); itl the gaps between chunks; goodput = good requests
// / duration.
Json load_report(const LoadRun& run,
                 const Goodput& goodput,
                 const std::vector<double>& percentiles);
// The same as a table for people.
std::string load_table(const Json& report, const std::vector<double>& percentiles);

// The p-th percentile (0 to 100) with linear interpolation, as numpy computes it; 0 of nothing.
double percentile(std::vector<double> values, double p);

}  // namespace wideep::cmd
