#include "cmd/load.h"

#include "base/random.h"

#include <algorithm>
#include <cmath>
#include <future>
#include <random>

namespace wideep::cmd {
namespace {

// One run: requests leave at their arrival times, at most concurrency_max at once. Lives on the
// loop.
class Generator {
 public:
  Generator(net::EventLoop& loop,
            http::Client& client,
            const LoadOptions& options,
            std::vector<Json> bodies,
            const std::function<void(const LoadProgress&)>& on_progress)
      : loop_(loop),
        client_(client),
        options_(options),
        on_progress_(on_progress),
        bodies_(std::move(bodies)),
        arrivals_(arrival_times(options, bodies_.size())) {
    run_.results.resize(bodies_.size());
  }

  LoadRun run() {
    if (bodies_.empty()) return {};
    start_ = real_clock().now();
    loop_.post([this] { send_due(); });
    finished_.get_future().wait();  // every call has a deadline of its own
    run_.duration_s = seconds_since_start();
    return std::move(run_);
  }

 private:
  double seconds_since_start() const {
    return std::chrono::duration<double>(real_clock().now() - start_).count();
  }

  bool may_send() const {
    return options_.concurrency_max == 0 ||
           progress_.sent - progress_.done < options_.concurrency_max;
  }

  void send_due() {
    while (next_ < bodies_.size() && may_send()) {
      const double wait_s = arrivals_[next_] - seconds_since_start();
      if (wait_s > 0) {
        loop_.post_after(
            std::chrono::duration_cast<Duration>(std::chrono::duration<double>(wait_s)),
            [this] { send_due(); });
        return;
      }
      send(next_++);
    }
  }

  void send(size_t i) {
    ++progress_.sent;
    CompletionCall call;
    call.server = options_.server;
    call.path = options_.path;
    call.api_key = options_.api_key;
    call.body = std::move(bodies_[i]);
    call.timeout = options_.timeout;
    call.on_done = [this, i](CompletionResult result) { take(i, std::move(result)); };
    start_completion(client_, std::move(call));
  }

  void take(size_t i, CompletionResult result) {
    ++progress_.done;
    progress_.output_tokens += result.completion_tokens;
    if (!result.error.empty()) ++progress_.failed;
    run_.results[i] = std::move(result);
    on_progress_(progress_);
    if (progress_.done == static_cast<int64_t>(bodies_.size())) {
      finished_.set_value();
    } else if (options_.concurrency_max > 0) {
      send_due();
    }
  }

  net::EventLoop& loop_;
  http::Client& client_;
  const LoadOptions& options_;
  const std::function<void(const LoadProgress&)>& on_progress_;
  std::vector<Json> bodies_;
  const std::vector<double> arrivals_;
  LoadRun run_;
  LoadProgress progress_;
  size_t next_ = 0;
  TimePoint start_{};
  std::promise<void> finished_;
};

double milliseconds(Duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

double tpot_ms(const CompletionResult& result) {
  return milliseconds(result.total - result.first_token) /
         static_cast<double>(std::max<int64_t>(1, result.completion_tokens - 1));
}

bool is_good(const CompletionResult& result, const Goodput& goal) {
  return (!goal.ttft || milliseconds(result.first_token) <= *goal.ttft) &&
         (!goal.tpot || tpot_ms(result) <= *goal.tpot) &&
         (!goal.e2el || milliseconds(result.total) <= *goal.e2el);
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values)
    sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

double deviation(const std::vector<double>& values) {
  const double center = mean(values);
  double sum = 0;
  for (const double value : values)
    sum += (value - center) * (value - center);
  return values.empty() ? 0 : std::sqrt(sum / static_cast<double>(values.size()));
}

std::string percentile_name(double p) {
  return p == std::floor(p) ? fmt::format("p{}", static_cast<int>(p)) : fmt::format("p{}", p);
}

// mean_ttft_ms, median_ttft_ms, std_ttft_ms, p99_ttft_ms
void add_distribution(Json& report,
                      const std::string& metric,
                      const std::vector<double>& values,
                      const std::vector<double>& percentiles) {
  report.set("mean_" + metric + "_ms", mean(values));
  report.set("median_" + metric + "_ms", percentile(values, 50));
  report.set("std_" + metric + "_ms", deviation(values));
  for (const double p : percentiles)
    report.set(percentile_name(p) + "_" + metric + "_ms", percentile(values, p));
}

}  // namespace

std::vector<double> arrival_times(const LoadOptions& options, size_t num_requests) {
  std::vector<double> times(num_requests, 0.0);
  if (std::isinf(options.request_rate)) return times;
  std::mt19937_64 engine(options.seed);
  std::gamma_distribution<double> gap(options.burstiness,
                                      1.0 / (options.request_rate * options.burstiness));
  double now = 0;
  for (double& time : times) {
    time = now;
    now += gap(engine);
  }
  return times;
}

LoadRun run_load(net::EventLoop& loop,
                 http::Client& client,
                 const LoadOptions& options,
                 std::vector<Json> bodies,
                 const std::function<void(const LoadProgress&)>& on_progress) {
  return Generator(loop, client, options, std::move(bodies), on_progress).run();
}

Result<Goodput> Goodput::parse(const std::vector<std::string>& pairs) {
  Goodput goal;
  for (const std::string& pair : pairs) {
    const size_t colon = pair.find(':');
    const auto number =
        colon == std::string::npos ? Result<Json>(Json()) : parse_json(pair.substr(colon + 1));
    const auto value = number ? number->as_double() : std::nullopt;
    const std::string metric = pair.substr(0, colon);
    if (!value || (metric != "ttft" && metric != "tpot" && metric != "e2el")) {
      return invalid_argument("--goodput {}: ttft:MS, tpot:MS or e2el:MS is expected", pair);
    }
    (metric == "ttft" ? goal.ttft : metric == "tpot" ? goal.tpot : goal.e2el) = value;
  }
  return goal;
}

Json load_report(const LoadRun& run,
                 const Goodput& goodput,
                 const std::vector<double>& percentiles) {
  int64_t completed = 0;
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  int64_t good = 0;
  std::vector<double> ttft;
  std::vector<double> tpot;
  std::vector<double> itl;
  std::vector<double> e2el;
  Json errors{Json::Array{}};
  for (const CompletionResult& result : run.results) {
    if (!result.error.empty()) {
      errors.append(result.error);
      continue;
    }
    ++completed;
    input_tokens += result.prompt_tokens;
    output_tokens += result.completion_tokens;
    ttft.push_back(milliseconds(result.first_token));
    if (result.completion_tokens > 1) tpot.push_back(tpot_ms(result));
    for (const Duration gap : result.gaps)
      itl.push_back(milliseconds(gap));
    e2el.push_back(milliseconds(result.total));
    if (is_good(result, goodput)) ++good;
  }
  const double duration = std::max(run.duration_s, 1e-9);
  Json report;
  report.set("duration", run.duration_s);
  report.set("completed", completed);
  report.set("failed", static_cast<int64_t>(run.results.size()) - completed);
  report.set("total_input_tokens", input_tokens);
  report.set("total_output_tokens", output_tokens);
  report.set("request_throughput", static_cast<double>(completed) / duration);
  report.set("request_goodput", static_cast<double>(good) / duration);
  report.set("output_throughput", static_cast<double>(output_tokens) / duration);
  report.set("total_token_throughput",
             static_cast<double>(input_tokens + output_tokens) / duration);
  add_distribution(report, "ttft", ttft, percentiles);
  add_distribution(report, "tpot", tpot, percentiles);
  add_distribution(report, "itl", itl, percentiles);
  add_distribution(report, "e2el", e2el, percentiles);
  report.set("errors", std::move(errors));
  return report;
}

std::string load_table(const Json& report, const std::vector<double>& percentiles) {
  const auto number = [&](const std::string& key) {
    const Json* value = report.find(key);
    return value != nullptr ? value->as_double().value_or(0) : 0;
  };
  const auto count = [&](const std::string& key) { return static_cast<int64_t>(number(key)); };
  std::string text = fmt::format(
      "requests     {} completed, {} failed, in {:.2f} s\n"
      "tokens       {} in, {} out\n"
      "throughput   {:.2f} requests/s ({:.2f} good), {:.1f} output tokens/s, {:.1f} tokens/s in "
      "all\n\n"
      "{:<34}{:>10}{:>10}",
      count("completed"), count("failed"), number("duration"), count("total_input_tokens"),
      count("total_output_tokens"), number("request_throughput"), number("request_goodput"),
      number("output_throughput"), number("total_token_throughput"), "milliseconds", "mean",
      "median");
  for (const double p : percentiles)
    text += fmt::format("{:>10}", percentile_name(p));
  for (const auto& [metric, title] :
       {std::pair{"ttft", "time to first token (TTFT)"},
        std::pair{"tpot", "time per output token (TPOT)"},
        std::pair{"itl", "inter-token latency (ITL)"}, std::pair{"e2el", "end to end (E2EL)"}}) {
    text +=
        fmt::format("\n{:<34}{:>10.2f}{:>10.2f}", title, number(fmt::format("mean_{}_ms", metric)),
                    number(fmt::format("median_{}_ms", metric)));
    for (const double p : percentiles) {
      text += fmt::format("{:>10.2f}", number(fmt::format("{}_{}_ms", percentile_name(p), metric)));
    }
  }
  return text + "\n";
}

double percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const double place = p / 100 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (values[above] - values[below]) * (place - static_cast<double>(below));
}

}  // namespace wideep::cmd
