// `wideep bench serve`: load on a running server.
#include "base/file.h"
#include "base/random.h"
#include "cmd/load.h"
#include "cmd/progress.h"
#include "cmd/verb.h"

#include <fmt/format.h>

#include <cmath>

namespace wideep::cmd {
namespace {

class BenchServe final : public Verb {
 public:
  BenchServe()
      : Verb("bench serve",
             "Put load on a running server and measure TTFT, TPOT, ITL and goodput.") {
    options.add("--base-url", &base_url_, {.group = "Server", .help = "Where the server is."});
    options.add("--endpoint", &endpoint_,
                {.group = "Server",
                 .help = "What to call.",
                 .choices = {"/v1/completions", "/v1/chat/completions"}});
    options.add("--model", &model_,
                {.group = "Server", .help = "Model name to ask for; the server's first if empty."});
    options.add("--api-key", &load_.api_key, {.group = "Server", .help = "Key to send."});
    options.add("--num-prompts", &num_prompts_, {.group = "Load", .help = "How many requests."});
    options.add("--request-rate", &request_rate_,
                {.group = "Load",
                 .help = "Requests a second (open loop), or inf: all at once.",
                 .value_name = "R"});
    options.add("--burstiness", &load_.burstiness,
                {.group = "Load",
                 .help = "Shape of the gaps between requests: 1 is Poisson, less is burstier."});
    options.add("--max-concurrency", &load_.concurrency_max,
                {.group = "Load", .help = "At most this many at once (closed loop); 0: no limit."});
    options.add("--random-input-len", &input_len_,
                {.group = "Prompts", .help = "Tokens of each prompt."});
    options.add("--random-output-len", &output_len_,
                {.group = "Prompts", .help = "Tokens to generate."});
    options.add("--random-prefix-len", &prefix_len_,
                {.group = "Prompts", .help = "Tokens that all prompts begin with, in addition."});
    options.add("--random-range-ratio", &range_ratio_,
                {.group = "Prompts", .help = "Lengths vary by up to this share, 0 to 1."});
    options.add("--random-vocab-size", &vocab_size_,
                {.group = "Prompts",
                 .help = "Random token ids are below this; every prompt has other tokens."});
    options.add("--ignore-eos", &ignore_eos_,
                {.group = "Prompts", .help = "Generate the full length."});
    options.add("--temperature", &temperature_,
                {.group = "Prompts", .help = "Sampling temperature."});
    options.add("--seed", &seed_,
                {.group = "Prompts", .help = "Same seed, same prompts and arrivals."});
    options.add("--goodput", &goodput_pairs_,
                {.group = "Report",
                 .help = "Objective a good request meets: ttft:MS, tpot:MS, e2el:MS. Repeat it."});
    options.add("--metric-percentiles", &percentiles_text_,
                {.group = "Report", .help = "Percentiles to report, with commas."});
    options.add("--result-filename", &result_filename_,
                {.group = "Report", .help = "Where to write the JSON, too."});
    options.add("--save-result", &save_result_,
                {.group = "Report",
                 .help = "Write the JSON to bench-<unix time>.json if no name is given."});
    options.refuse("--dataset-name", "only random prompts are generated", {"random"});
  }

  int run() override {
    const Status done = measure();
    return done ? kExitOk : fail(done.error());
  }

 private:
  Status measure() {
    WD_ASSIGN_OR_RETURN(load_.server, ServerUrl::parse(base_url_));
    WD_ASSIGN_OR_RETURN(const Goodput goodput, Goodput::parse(goodput_pairs_));
    WD_ASSIGN_OR_RETURN(const std::vector<double> percentiles, parse_percentiles());
    WD_TRY(parse_rate());
    load_.path = endpoint_;
    load_.seed = static_cast<uint64_t>(seed_);
    if (input_len_ < 1 || output_len_ < 1 || num_prompts_ < 1 || vocab_size_ < 2 ||
        prefix_len_ < 0) {
      return invalid_argument("lengths, --num-prompts and --random-vocab-size must be positive");
    }
    net::LoopThread thread;
    http::Client client(thread.loop(),
                        {.connections_per_address_max = 4096, .idle_per_address_max = 4096});
    if (model_.empty()) WD_TRY(ask_model_name(client));

    LoadRun run;
    {
      Progress progress("requests", "req");
      run = run_load(thread.loop(), client, load_, make_bodies(), [&](const LoadProgress& now) {
        progress.update(now.done, num_prompts_,
                        fmt::format("{} running, {} failed, {} tokens", now.sent - now.done,
                                    now.failed, now.output_tokens));
      });
    }
    Json report = describe();
    const Json measured = load_report(run, goodput, percentiles);
    for (const auto& [key, value] : *measured.as_object())
      report.set(key, value);
    fmt::print("{}", load_table(measured, percentiles));
    if (save_result_ && result_filename_.empty()) {
      result_filename_ = fmt::format("bench-{}.json", real_clock().unix_seconds());
    }
    if (!result_filename_.empty()) WD_TRY(write_file(result_filename_, report.dump() + "\n"));
    if (number_of(measured, "completed") == 0) {
      return error(ErrorCode::kUnavailable, "no request succeeded; the first error: {}",
                   *measured.find("errors")->as_array()->front().as_string());
    }
    return {};
  }

  static int64_t number_of(const Json& report, const char* key) {
    return report.find(key)->as_int().value_or(0);
  }

  Status parse_rate() {
    if (request_rate_ == "inf") return {};
    const auto parsed = parse_json(request_rate_);
    const auto rate = parsed ? parsed->as_double() : std::nullopt;
    if (!rate || *rate <= 0 || load_.burstiness <= 0) {
      return invalid_argument("--request-rate {}: a positive number or inf is expected",
                              request_rate_);
    }
    load_.request_rate = *rate;
    return {};
  }

  Result<std::vector<double>> parse_percentiles() const {
    const auto list = parse_json("[" + percentiles_text_ + "]");
    std::vector<double> percentiles;
    if (list) {
      for (const Json& item : *list->as_array()) {
        const auto value = item.as_double();
        if (value && *value >= 0 && *value <= 100) percentiles.push_back(*value);
      }
    }
    if (!list || percentiles.size() != list->as_array()->size()) {
      return invalid_argument("--metric-percentiles {}: numbers from 0 to 100 are expected",
                              percentiles_text_);
    }
    return percentiles;
  }

  Status ask_model_name(http::Client& client) {
    http::Call call;
    call.address = load_.server.address;
    call.target = load_.server.target("/v1/models");
    if (!load_.api_key.empty()) call.headers.set("authorization", "Bearer " + load_.api_key);
    const auto response = client.fetch(std::move(call));
    if (!response) return std::unexpected(response.error().error);
    const auto list = parse_json(response->body);
    const Json* entries = list ? list->find("data") : nullptr;
    if (entries == nullptr || entries->as_array() == nullptr || entries->as_array()->empty()) {
      return error(ErrorCode::kUnavailable, "{}: no model in /v1/models (HTTP {})", base_url_,
                   response->status);
    }
    const Json* id = entries->as_array()->front().find("id");
    if (id != nullptr && id->as_string() != nullptr) model_ = *id->as_string();
    return {};
  }

  int64_t vary(Random& random, int64_t length) const {
    const double spread = (random.uniform() * 2 - 1) * range_ratio_;
    return std::max<int64_t>(1, std::llround(static_cast<double>(length) * (1 + spread)));
  }

  Json random_tokens(Random& random, int64_t count) const {
    Json tokens{Json::Array{}};
    for (int64_t i = 0; i < count; ++i) {
      tokens.append(static_cast<int64_t>(random.below(static_cast<uint64_t>(vocab_size_))));
    }
    return tokens;
  }

  std::vector<Json> make_bodies() const {
    Random random(static_cast<uint64_t>(seed_));
    const Json prefix = random_tokens(random, prefix_len_);
    std::vector<Json> bodies;
    for (int64_t i = 0; i < num_prompts_; ++i) {
      Json prompt = prefix;
      const Json own = random_tokens(random, vary(random, input_len_));
      for (const Json& token : *own.as_array())
        prompt.append(token);
      Json body;
      body.set("model", model_);
      body.set("temperature", temperature_);
      body.set("max_tokens", vary(random, output_len_));
      body.set("ignore_eos", ignore_eos_);
      if (endpoint_ == "/v1/completions") {
        body.set("prompt", std::move(prompt));
      } else {
        Json message;
        message.set("role", "user");
        message.set("content", words(*prompt.as_array()));
        body.set("messages", Json(Json::Array{std::move(message)}));
      }
      bodies.push_back(std::move(body));
    }
    return bodies;
  }

  // Chat takes text only: a word for each number.
  static std::string words(const Json::Array& numbers) {
    std::string text;
    for (const Json& number : numbers)
      text += fmt::format("{} ", *number.as_int());
    return text;
  }

  Json describe() const {
    Json report;
    report.set("date", real_clock().unix_seconds());
    report.set("backend", "openai");
    report.set("endpoint", endpoint_);
    report.set("model_id", model_);
    report.set("num_prompts", num_prompts_);
    report.set("request_rate",
               std::isinf(load_.request_rate) ? Json("inf") : Json(load_.request_rate));
    report.set("burstiness", load_.burstiness);
    report.set("max_concurrency",
               load_.concurrency_max == 0 ? Json() : Json(load_.concurrency_max));
    report.set("random_input_len", input_len_);
    report.set("random_output_len", output_len_);
    report.set("seed", seed_);
    return report;
  }

  std::string base_url_ = "http://127.0.0.1:8000";
  std::string endpoint_ = "/v1/completions";
  std::string model_;
  std::string request_rate_ = "inf";
  std::string percentiles_text_ = "90,99";
  std::string result_filename_;
  LoadOptions load_;
  int64_t num_prompts_ = 100;
  int64_t input_len_ = 128;
  int64_t output_len_ = 64;
  int64_t prefix_len_ = 0;
  int64_t vocab_size_ = 4096;
  int64_t seed_ = 0;
  double range_ratio_ = 0;
  double temperature_ = 0;
  bool ignore_eos_ = true;
  bool save_result_ = false;
  std::vector<std::string> goodput_pairs_;
};

}  // namespace

std::unique_ptr<Verb> make_bench_serve() {
  return std::make_unique<BenchServe>();
}

}  // namespace wideep::cmd
