// `wideep chat`: a conversation in the terminal, streamed.
#include "cmd/completion_call.h"
#include "cmd/local_server.h"
#include "cmd/route_report.h"
#include "cmd/verb.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

namespace wideep::cmd {
namespace {

constexpr std::string_view kCommands =
    "  /new           forget the conversation\n"
    "  /system TEXT   set the system prompt and start anew\n"
    "  /retry         ask the last question again\n"
    "  /stats         times and token counts after each answer, on or off\n"
    "  /quit          leave (also Ctrl-D)\n";

Json message(std::string_view role, std::string_view content) {
  Json result;
  result.set("role", role);
  result.set("content", content);
  return result;
}

class Chat final : public Verb {
 public:
  Chat() : Verb("chat", "Talk to a model: one served elsewhere (--url), or MODEL, loaded here.") {
    options.add_positional("MODEL", &model_path_,
                           "Folder of a model to load; without it --url is called.", false);
    options.add("--url", &url_, {.group = "Chat", .help = "Server to talk to."});
    options.add("--api-key", &api_key_, {.group = "Chat", .help = "Key to send."});
    options.add("--model-name", &model_name_,
                {.group = "Chat", .help = "Model to ask for, if the server has several."});
    options.add("--quick", &quick_,
                {.group = "Chat", .help = "Ask this, print the answer, leave.", .alias = "-q"});
    options.add("--system-prompt", &system_,
                {.group = "Chat", .help = "What the model is told first."});
    options.add("--temperature", &temperature_,
                {.group = "Sampling", .help = "Negative: the server's default."});
    options.add("--max-tokens", &max_tokens_,
                {.group = "Sampling", .help = "Longest answer; 0: no limit."});
    options.add("--seed", &seed_,
                {.group = "Sampling", .help = "Negative: a new one for every answer."});
    options.add("--stats", &show_stats_,
                {.group = "Chat", .help = "Times and token counts after each answer."});
    options.add("--route", &show_route_,
                {.group = "Chat",
                 .help = "Which ranks each answer came from, and what they did for it; needs a "
                         "gateway with --expose-routes, as wideep up has."});
  }

  int run() override {
    const Status done = talk();
    return done ? kExitOk : fail(done.error());
  }

 private:
  Status talk() {
    std::unique_ptr<LocalServer> local;
    if (!model_path_.empty()) {
      WD_ASSIGN_OR_RETURN(local, LocalServer::start(model_path_));
      url_ = local->url();
    }
    WD_ASSIGN_OR_RETURN(server_, ServerUrl::parse(url_));
    net::LoopThread thread;
    http::Client client(thread.loop());
    client_ = &client;
    reset();
    if (!quick_.empty()) return ask(quick_);
    return converse();
  }

  Status converse() {
    const bool is_terminal = isatty(STDIN_FILENO) == 1;
    if (is_terminal) fmt::print("Talking to {}. /help lists commands.\n", url_);
    std::string line;
    while (true) {
      if (is_terminal) fmt::print("\n> ");
      std::fflush(stdout);
      if (!std::getline(std::cin, line)) break;
      if (line.empty()) continue;
      if (line == "/quit" || line == "/exit") break;
      if (line.starts_with("/")) {
        command(line);
        continue;
      }
      if (Status answered = ask(line); !answered) {
        if (!is_terminal) return answered;
        fmt::print(stderr, "{}\n", answered.error().message);
      }
    }
    if (is_terminal) fmt::print("\n");
    return {};
  }

  void reset() {
    messages_ = Json(Json::Array{});
    if (!system_.empty()) messages_.append(message("system", system_));
  }

  void command(const std::string& line) {
    if (line == "/new") {
      reset();
      fmt::print("The conversation is forgotten.\n");
    } else if (line.starts_with("/system ")) {
      system_ = line.substr(8);
      reset();
      fmt::print("The conversation begins anew with this system prompt.\n");
    } else if (line == "/stats") {
      show_stats_ = !show_stats_;
      fmt::print("Times and token counts are {}.\n", show_stats_ ? "shown" : "not shown");
    } else if (line == "/retry") {
      if (last_question_.empty()) return;
      Json::Array& all = *messages_.as_array();
      if (all.size() >= 2) all.resize(all.size() - 2);
      if (const Status answered = ask(last_question_); !answered)
        fmt::print(stderr, "{}\n", answered.error().message);
    } else {
      if (line != "/help") fmt::print("There is no {}. There are:\n", line);
      fmt::print("{}", kCommands);
    }
  }

  Status ask(const std::string& question) {
    last_question_ = question;
    Json::Array& all = *messages_.as_array();
    all.push_back(message("user", question));
    CompletionCall call;
    call.server = server_;
    call.path = "/v1/chat/completions";
    call.api_key = api_key_;
    call.body.set("messages", messages_);
    if (!model_name_.empty()) call.body.set("model", model_name_);
    if (temperature_ >= 0) call.body.set("temperature", temperature_);
    if (max_tokens_ > 0) call.body.set("max_tokens", max_tokens_);
    if (seed_ >= 0) call.body.set("seed", seed_);
    const bool is_terminal = isatty(STDOUT_FILENO) == 1;
    call.on_text = [is_terminal](std::string_view text, bool is_reasoning) {
      // Thoughts are dim on a terminal and left out elsewhere.
      if (is_reasoning && is_terminal) fmt::print("\x1b[2m{}\x1b[0m", text);
      if (!is_reasoning) fmt::print("{}", text);
      std::fflush(stdout);
    };
    std::optional<RouteReport> route;
    if (show_route_) {
      WD_ASSIGN_OR_RETURN(route, RouteReport::begin(*client_, server_, api_key_));
    }
    const CompletionResult result = complete(*client_, std::move(call));
    fmt::print("\n");
    if (!result.error.empty()) {
      all.pop_back();
      return error(ErrorCode::kUnavailable, "{}", result.error);
    }
    all.push_back(message("assistant", result.text));
    if (show_stats_) print_stats(result);
    if (route) fmt::print("{}\n", fmt::join(route->end(result), "\n"));
    return {};
  }

  static void print_stats(const CompletionResult& result) {
    const auto ms = [](Duration d) { return std::chrono::duration<double, std::milli>(d).count(); };
    // Over the whole answer: a small model's can be done before its first token has been read here.
    const double tokens_per_ms = static_cast<double>(result.completion_tokens) / ms(result.total);
    fmt::print(
        "[{} prompt tokens ({} cached), {} generated: first after {:.0f} ms, all after {:.0f} ms, "
        "{:.0f} tokens/s]\n",
        result.prompt_tokens, result.cached_tokens, result.completion_tokens,
        ms(result.first_token), ms(result.total), 1000 * tokens_per_ms);
  }

  std::string model_path_;
  std::string url_ = "http://127.0.0.1:8000";
  std::string api_key_;
  std::string model_name_;
  std::string quick_;
  std::string system_;
  std::string last_question_;
  double temperature_ = -1;
  int64_t max_tokens_ = 0;
  int64_t seed_ = -1;
  bool show_stats_ = false;
  bool show_route_ = false;
  ServerUrl server_;
  Json messages_;
  http::Client* client_ = nullptr;
};

}  // namespace

std::unique_ptr<Verb> make_chat() {
  return std::make_unique<Chat>();
}

}  // namespace wideep::cmd
