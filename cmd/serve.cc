// `wideep serve MODEL`: an engine with the OpenAI API.
#include "base/log.h"
#include "cmd/listen_options.h"
#include "cmd/rank_server.h"
#include "cmd/run_until_signal.h"
#include "cmd/verb.h"

#include <fmt/format.h>

namespace wideep::cmd {
namespace {

class Serve final : public Verb {
 public:
  Serve() : Verb("serve", "Serve a model over the OpenAI API.") {
    constexpr int64_t kDefaultPort = 8000;
    rank_.engine.declare(options);
    listen_.declare(options, kDefaultPort);
    options.add("--served-model-name", &rank_.api.served_model_names,
                {.group = "API",
                 .help = "Names that requests may ask for; the first is the one in answers."});
    options.add("--chat-template", &rank_.chat_template_file,
                {.group = "API",
                 .help = "Jinja template to use instead of the model's.",
                 .value_name = "FILE"});
    options.add("--split-reasoning", &rank_.api.split_reasoning,
                {.group = "API", .help = "Answer <think>…</think> as reasoning_content."});
    options.add("--metrics-port", &metrics_port_,
                {.group = "Server",
                 .help = "A port of its own for /metrics and health, without keys; 0: none."});
    options.add("--generation-config", &generation_config_,
                {.group = "API",
                 .help = "Where sampling defaults come from: auto is generation_config.json.",
                 .choices = {"auto", "vllm"}});
    refuse_what_is_missing();
  }

  int run() override {
    const Status done = serve();
    return done ? kExitOk : fail(done.error(), status_);
  }

 private:
  void refuse_what_is_missing() {
    options.refuse("--tensor-parallel-size", "attention is data parallel; run more ranks", {"1"});
    options.refuse("-tp", "attention is data parallel; run more ranks", {"1"});
    options.refuse("--pipeline-parallel-size", "there are no pipeline stages", {"1"});
    options.refuse("--data-parallel-size", "groups of ranks are not served yet", {"1"});
    options.refuse("--enable-expert-parallel", "groups of ranks are not served yet");
    options.refuse("--enable-eplb", "groups of ranks are not served yet");
    options.refuse("--kv-transfer-config", "KV transfer between ranks");
    options.refuse("--enable-lora", "LoRA adapters");
    options.refuse("--reasoning-parser", "thinking is split for every model; see --split-reasoning",
                   {"deepseek_r1", "qwen3"});
    options.refuse("--tool-call-parser", "tool calls");
    options.refuse("--enable-auto-tool-choice", "tool calls");
    options.refuse("--gpu-memory-utilization", "there is no GPU; see --kv-cache-memory-bytes");
    options.refuse("--trust-remote-code", "code of a checkpoint is never run");
    options.refuse("--tokenizer", "the tokenizer is the model's own");
    options.refuse("--kv-cache-dtype", "the cache has the type of the arithmetic", {"auto"});
    options.refuse("--ssl-keyfile", "TLS; put a proxy in front");
    options.refuse("--ssl-certfile", "TLS; put a proxy in front");
  }

  Status serve() {
    WD_ASSIGN_OR_RETURN(const net::Address address, listen_.address());
    WD_ASSIGN_OR_RETURN(rank_.api.keys, listen_.keys());
    rank_.api.http_limits = listen_.limits();
    rank_.api.version = WIDEEP_VERSION;
    rank_.use_generation_config = generation_config_ == "auto";
    WD_TRY(load_options(rank_.engine));  // flags that cannot be are not the model's fault
    net::EventLoop loop;
    bool failed = false;
    status_ = kExitBadModel;
    WD_ASSIGN_OR_RETURN(const auto rank, RankServer::create(loop, rank_, [&](const Error& reason) {
                          log_error("the engine cannot go on: {}", reason.message);
                          failed = true;
                          loop.stop();
                        }));
    status_ = kExitFailed;
    WD_ASSIGN_OR_RETURN(const net::Address bound, rank->api().listen(address));
    if (metrics_port_ > 0) {
      WD_TRY(rank->api().listen_metrics(
          {.host = listen_.host, .port = static_cast<uint16_t>(metrics_port_), .path = {}}));
    }
    const std::string url = bound.is_unix() ? bound.to_string() : "http://" + bound.to_string();
    log_info("serving {} at {}", rank_.engine.model_path, url);
    WD_TRY(write_ready_file(listen_.ready_file, url));
    run_until_signal(loop, [&] { rank->api().drain_and_wait(listen_.shutdown_timeout); });
    return failed ? error(ErrorCode::kUnavailable, "the engine has stopped") : Status{};
  }

  RankServerOptions rank_;
  ListenFlags listen_;
  int64_t metrics_port_ = 0;
  int status_ = kExitFailed;  // what a failure at the present stage exits with
  std::string generation_config_ = "auto";
};

}  // namespace

std::unique_ptr<Verb> make_serve() {
  return std::make_unique<Serve>();
}

}  // namespace wideep::cmd
