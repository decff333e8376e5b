#include "cmd/rank_server.h"

#include "base/file.h"
#include "base/log.h"
#include "cmd/expert_load.h"
#include "cmd/kv_options.h"
#include "cmd/rank_metrics.h"
#include "model/config.h"
#include "tokenizer/chat_template.h"

#include <filesystem>

namespace wideep::cmd {
namespace {

constexpr int64_t kTemplateBytesMax = 1 << 20;

// Null if the model has no template: chat is then refused, completions are not.
Result<std::unique_ptr<tokenizer::ChatTemplate>> load_template(const std::string& model_path,
                                                               const std::string& file) {
  Result<tokenizer::ChatTemplate> loaded = tokenizer::ChatTemplate::load(model_path);
  if (!file.empty()) {
    WD_ASSIGN_OR_RETURN(const std::string source, read_file(file, kTemplateBytesMax));
    loaded = tokenizer::ChatTemplate::parse(source);
    if (!loaded) return with_context(loaded.error(), file);
  }
  if (!loaded && loaded.error().code == ErrorCode::kNotFound) {
    log_warning("{}: no chat template; /v1/chat/completions is refused", model_path);
    return nullptr;
  }
  if (!loaded) return std::unexpected(loaded.error());
  return std::make_unique<tokenizer::ChatTemplate>(std::move(*loaded));
}

}  // namespace

// In the order in which they are built; destroyed in reverse.
struct RankServer::Parts {
  std::unique_ptr<EngineHost> host;
  std::unique_ptr<kv::KvTransfer> kv;
  std::unique_ptr<tokenizer::ChatTemplate> chat_template;
  std::unique_ptr<RankMetrics> metrics;
  std::unique_ptr<server::ApiServer> api;

  ~Parts() {
    if (host != nullptr) host->stop();  // no more events go to the API server
  }
};

RankServer::RankServer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

RankServer::~RankServer() = default;

server::ApiServer& RankServer::api() {
  return *parts_->api;
}

EngineHost& RankServer::host() {
  return *parts_->host;
}

Result<std::unique_ptr<RankServer>> RankServer::create(
    net::EventLoop& loop, RankServerOptions options, std::function<void(const Error&)> on_failure) {
  auto parts = std::make_unique<Parts>();
  const std::string model_path = options.engine.model_path;
  WD_ASSIGN_OR_RETURN(const model::GenerationConfig generation,
                      model::load_generation_config(model_path));
  options.engine.engine.end_tokens = generation.eos_tokens;
  if (options.use_generation_config) options.api.defaults = generation;
  WD_ASSIGN_OR_RETURN(parts->chat_template, load_template(model_path, options.chat_template_file));
  if (options.kv) apply(*options.kv, options.engine.engine);
  WD_ASSIGN_OR_RETURN(parts->host, EngineHost::create(std::move(options.engine)));
  if (options.api.served_model_names.empty()) {
    options.api.served_model_names = {
        std::filesystem::path(model_path).lexically_normal().filename().string()};
    if (options.api.served_model_names[0].empty()) options.api.served_model_names[0] = model_path;
  }
  options.api.model_root = model_path;

  EngineHost& host = *parts->host;
  if (options.kv) {
    options.kv->labels = {{"model_name", options.api.served_model_names.front()},
                          {"engine", options.api.engine_label}};
    WD_ASSIGN_OR_RETURN(parts->kv,
                        kv::KvTransfer::create(*host.engine().kv_port(), *std::move(options.kv)));
  }
  options.api.health = [&host] {
    return server::EngineHealth{.step_age = host.loop().step_age(),
                                .failure = host.loop().failure()};
  };
  parts->metrics = std::make_unique<RankMetrics>(
      host, MetricLabels{{"model_name", options.api.served_model_names[0]},
                         {"engine", options.api.engine_label}});
  options.api.more_metrics = [&metrics = *parts->metrics](std::string& text) {
    metrics.render(text);
  };
  options.api.expert_load = [&host] { return expert_load(host); };
  server::ChatRenderer renderer;
  if (parts->chat_template != nullptr) {
    renderer = [&chat = *parts->chat_template](const Json& variables) {
      return chat.render(variables, {.now_unix_seconds = real_clock().unix_seconds()});
    };
  }
  parts->api = std::make_unique<server::ApiServer>(
      server::ApiServerParts{loop, host.engine(), host.tokenizer(), std::move(renderer),
                             real_clock(), parts->kv.get()},
      std::move(options.api));
  WD_TRY(host.start(
      {.on_step = [&api = *parts->api](const engine::EngineStats& stats) { api.on_step(stats); },
       .on_failure = std::move(on_failure)}));
  return std::make_unique<RankServer>(std::move(parts));
}

}  // namespace wideep::cmd
