// `wideep bench quality`: asks a list of questions through the API and scores the answers.
#include "base/file.h"
#include "cmd/load.h"
#include "cmd/local_server.h"
#include "cmd/progress.h"
#include "cmd/quality.h"
#include "cmd/verb.h"

#include <fmt/format.h>

#include <memory>

namespace wideep::cmd {
namespace {

constexpr int64_t kQuestionsBytesMax = 16 << 20;

class BenchQuality final : public Verb {
 public:
  BenchQuality()
      : Verb("bench quality",
             "Ask a question list through the API and score the answers against the source.") {
    options.add_positional("MODEL", &model_path_,
                           "Folder of a model to load; without it --base-url is called.", false);
    options.add("--base-url", &base_url_, {.group = "Server", .help = "Where the server is."});
    options.add("--api-key", &load_.api_key, {.group = "Server", .help = "Key to send."});
    options.add("--questions", &questions_path_,
                {.group = "Questions",
                 .help = "The list; MODEL/questions.json if empty.",
                 .value_name = "FILE"});
    options.add("--limit", &limit_,
                {.group = "Questions", .help = "Ask only so many of each set; 0: all."});
    options.add("--max-concurrency", &load_.concurrency_max,
                {.group = "Questions", .help = "At most this many at once."});
    options.add("--max-tokens", &max_tokens_, {.group = "Questions", .help = "Longest answer."});
    options.add(
        "--threshold", &threshold_,
        {.group = "Score", .help = "An answer counts from this edit similarity on (1 is equal)."});
    options.add("--show-misses", &show_misses_,
                {.group = "Score", .help = "Print so many answers that did not count."});
    options.add("--result-filename", &result_filename_,
                {.group = "Score", .help = "Where to write the scores as JSON."});
    load_.concurrency_max = 16;
    load_.path = "/v1/chat/completions";
  }

  int run() override {
    const Status done = measure();
    return done ? kExitOk : fail(done.error());
  }

 private:
  Status measure() {
    if (questions_path_.empty()) questions_path_ = model_path_ + "/questions.json";
    WD_ASSIGN_OR_RETURN(const std::string text, read_file(questions_path_, kQuestionsBytesMax));
    auto sets = parse_questions(text);
    if (!sets) return with_context(sets.error(), questions_path_);
    std::unique_ptr<LocalServer> local;
    if (!model_path_.empty()) {
      WD_ASSIGN_OR_RETURN(local, LocalServer::start(model_path_));
      base_url_ = local->url();
    }
    WD_ASSIGN_OR_RETURN(load_.server, ServerUrl::parse(base_url_));
    net::LoopThread thread;
    http::Client client(thread.loop());
    Json report;
    for (QuestionSet& set : *sets) {
      if (limit_ > 0 && static_cast<int64_t>(set.questions.size()) > limit_) {
        set.questions.resize(static_cast<size_t>(limit_));
      }
      WD_ASSIGN_OR_RETURN(Json score, ask(thread.loop(), client, set));
      report.set(set.name, std::move(score));
    }
    if (!result_filename_.empty()) WD_TRY(write_file(result_filename_, report.dump() + "\n"));
    return {};
  }

  Result<Json> ask(net::EventLoop& loop, http::Client& client, const QuestionSet& set) {
    std::vector<Json> bodies;
    for (const Question& question : set.questions) {
      Json message;
      message.set("role", "user");
      message.set("content", question.text);
      Json body;
      body.set("messages", Json(Json::Array{std::move(message)}));
      body.set("temperature", 0);
      body.set("max_tokens", max_tokens_);
      bodies.push_back(std::move(body));
    }
    LoadRun run;
    {
      Progress progress(set.name, "questions");
      const auto total = static_cast<int64_t>(bodies.size());
      run = run_load(loop, client, load_, std::move(bodies),
                     [&](const LoadProgress& now) { progress.update(now.done, total); });
    }
    return score(set, run);
  }

  Result<Json> score(const QuestionSet& set, const LoadRun& run) const {
    int64_t hits = 0;
    int64_t misses_shown = 0;
    double sum = 0;
    for (size_t i = 0; i < set.questions.size(); ++i) {
      const CompletionResult& result = run.results[i];
      if (!result.error.empty()) {
        return error(ErrorCode::kUnavailable, "'{}': {}", set.questions[i].text, result.error);
      }
      const double similarity = edit_similarity(result.text, set.questions[i].answer);
      sum += similarity;
      if (similarity >= threshold_) {
        ++hits;
      } else if (misses_shown++ < show_misses_) {
        fmt::print("  {:.2f}  {}\n        expected: {}\n        answered: {}\n", similarity,
                   set.questions[i].text, set.questions[i].answer, result.text);
      }
    }
    const auto asked = static_cast<double>(std::max<size_t>(1, set.questions.size()));
    fmt::print("{:<12} {:5.1f} % of {} answers match (similarity >= {}), mean similarity {:.3f}\n",
               set.name, 100.0 * static_cast<double>(hits) / asked, set.questions.size(),
               threshold_, sum / asked);
    Json result;
    result.set("asked", static_cast<int64_t>(set.questions.size()));
    result.set("matched", hits);
    result.set("share", static_cast<double>(hits) / asked);
    result.set("mean_similarity", sum / asked);
    result.set("threshold", threshold_);
    return result;
  }

  std::string model_path_;
  std::string base_url_ = "http://127.0.0.1:8000";
  std::string questions_path_;
  std::string result_filename_;
  LoadOptions load_;
  int64_t limit_ = 0;
  int64_t max_tokens_ = 128;
  int64_t show_misses_ = 0;
  double threshold_ = 0.9;
};

}  // namespace

std::unique_ptr<Verb> make_bench_quality() {
  return std::make_unique<BenchQuality>();
}

}  // namespace wideep::cmd
