// Routes, health and what is the same for every request; generation_routes.cc has the rest.
#include "server/api_core.h"

#include "base/random.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

namespace wideep::server {
namespace {

constexpr size_t kRequestIdBytesMax = 128;
constexpr std::chrono::milliseconds kDrainPoll{20};
// What load balancers and kubelets must see without a key.
constexpr std::array<std::string_view, 5> kOpenPaths = {"/health", "/ready", "/live", "/ping",
                                                        "/version"};

http::Response json_response(std::string body, int status = 200) {
  return {
      .status = status, .headers = {{"content-type", "application/json"}}, .body = std::move(body)};
}

ApiServerOptions with_kv(ApiServerOptions options, bool is_there) {
  options.request_limits.allow_kv_transfer = is_there;
  return options;
}

// A client's own id if it is short and plain, else a new one.
std::string request_id(const http::Request& request) {
  const std::string_view given = request.headers.get("x-request-id");
  const bool is_plain = !given.empty() && given.size() <= kRequestIdBytesMax &&
                        std::ranges::all_of(given, [](char c) {
                          return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                                 (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.' ||
                                 c == ':';
                        });
  if (is_plain) return std::string(given);
  return fmt::format("{:016x}{:016x}", random_device_bits(), random_device_bits());
}

}  // namespace

ApiServer::Core::Core(ApiServerParts parts, ApiServerOptions options)
    : parts_(std::move(parts)),
      options_(with_kv(std::move(options), parts_.kv != nullptr)),
      prompts_(parts_.tokenizer, parts_.renderer, parts_.engine.options().max_model_len),
      created_(parts_.clock.unix_seconds()),
      metrics_(options_.served_model_names.at(0), options_.engine_label, parts_.engine.options()),
      context_{.engine = parts_.engine,
               .metrics = metrics_,
               .queue = queue_,
               .clock = parts_.clock,
               .mailbox = std::make_shared<EventMailbox>(parts_.loop),
               .kv = parts_.kv,
               .ping_interval = options_.ping_interval} {
  http_.emplace(parts_.loop, http_options());
  http::ServerOptions metrics_options;
  metrics_options.render_error = http_options().render_error;
  metrics_http_.emplace(parts_.loop, std::move(metrics_options));
  workers_.emplace(options_.tokenizer_threads, options_.preparing_requests_max);
}

void ApiServer::Core::close() {
  draining_ = true;
  workers_.reset();
  http_.reset();
  metrics_http_.reset();
  // On the loop: whatever is being delivered there has been delivered by then.
  parts_.loop.run_and_wait([this] {
    closed_ = true;
    context_.mailbox->close();
  });
}

void ApiServer::Core::drain_and_wait(Duration timeout) {
  const TimePoint deadline = parts_.clock.now() + timeout;
  draining_ = true;
  parts_.engine.drain();
  // The address stays open meanwhile: probes read "draining", new requests get a 503.
  while (parts_.engine.num_unfinished() > 0 && parts_.clock.now() < deadline)
    std::this_thread::sleep_for(kDrainPoll);
  http_->drain_and_wait(std::max(Duration::zero(), deadline - parts_.clock.now()));
}

void ApiServer::Core::on_step(const engine::EngineStats& stats) {
  metrics_.on_step(stats);
  queue_.on_step(stats.last_step_end - stats.last_step_start);
}

http::ServerOptions ApiServer::Core::http_options() {
  http::ServerOptions options;
  options.limits = options_.http_limits;
  options.render_error = [](int status, std::string_view message) {
    return error_response(api::from_http_status(status, message));
  };
  options.guard = [this](const http::Request& request) { return guard(request); };
  options.on_answered = [this](const http::AccessRecord& record) { metrics_.on_answered(record); };
  return options;
}

std::optional<http::Response> ApiServer::Core::guard(const http::Request& request) const {
  if (std::ranges::find(kOpenPaths, request.path) != kOpenPaths.end()) return std::nullopt;
  if (request.path == "/metrics" && options_.open_metrics) return std::nullopt;
  if (options_.keys.caller(request.headers)) return std::nullopt;
  return error_response(api::invalid_api_key());
}

void ApiServer::Core::add_routes() {
  add_json_route("/v1/chat/completions", &Core::chat);
  add_json_route("/v1/completions", &Core::completion);
  add_json_route("/tokenize", &Core::tokenize);
  add_json_route("/detokenize", &Core::detokenize);
  http_->route("GET", "/v1/models", [this](const http::Request&, http::Responder responder) {
    responder.send(models({}));
  });
  http_->route("GET", "/v1/models/*",
               [this](const http::Request& request, http::Responder responder) {
                 responder.send(models(request.rest));
               });
  http_->route("GET", "/load", [this](const http::Request&, http::Responder responder) {
    const engine::EngineStats stats = parts_.engine.stats();
    responder.send(json_response(
        fmt::format("{{\"server_load\":{}}}", stats.num_running + stats.num_waiting)));
  });
  if (parts_.kv != nullptr) {
    http_->route("POST", "/kv_transfer/release",
                 [this](const http::Request& request, http::Responder responder) {
                   responder.send(release_kv(request));
                 },
                 {.media_type = "application/json"});
  }
  add_health_routes(*http_);
  add_health_routes(*metrics_http_);
}

void ApiServer::Core::add_health_routes(http::Server& server) {
  for (const std::string_view path : {"/health", "/ready", "/ping"}) {
    server.route("GET", path, [this](const http::Request&, http::Responder responder) {
      responder.send(health());
    });
  }
  server.route("GET", "/live", [](const http::Request&, http::Responder responder) {
    responder.send(json_response("{\"status\":\"ok\"}"));
  });
  server.route("GET", "/version", [this](const http::Request&, http::Responder responder) {
    Json json;
    json.set("version", options_.version);
    responder.send(json_response(json.dump()));
  });
  server.route("GET", "/metrics", [this](const http::Request&, http::Responder responder) {
    responder.send(render_metrics());
  });
  server.route("GET", "/expert_load", [this](const http::Request&, http::Responder responder) {
    responder.send(expert_load());
  });
}

void ApiServer::Core::add_json_route(std::string_view path, Work work) {
  http_->route("POST", path,
               [this, work](http::Request request, http::Responder responder) {
                 dispatch(std::move(request), std::move(responder), work);
               },
               {.media_type = "application/json"});
}

void ApiServer::Core::dispatch(http::Request request, http::Responder responder, Work work) {
  std::string id = request_id(request);
  const auto arrival = std::make_shared<Arrival>(std::move(request), std::move(responder),
                                                 std::move(id), parts_.clock.now());
  if (draining_) {
    return refuse(*arrival, api::overloaded("draining", "The server is shutting down.", 1));
  }
  // A full queue is told before the work of parsing and tokenising.
  const engine::EngineStats stats = parts_.engine.stats();
  const bool is_full = stats.num_waiting >= parts_.engine.options().max_num_queued_reqs;
  const auto task = [self = shared_from_this(), arrival, work] { (self.get()->*work)(arrival); };
  if (is_full || !workers_->try_run(task)) {
    metrics_.on_rejected("queue_full");
    api::ApiError full = api::from_error({ErrorCode::kExhausted, "Too many requests are waiting."});
    full.retry_after_s = queue_.retry_after_s(stats, parts_.engine.options());
    refuse(*arrival, full);
  }
}

void ApiServer::Core::refuse(const Arrival& arrival, const api::ApiError& error) {
  http::Responder responder = arrival.responder;
  responder.send(error_response(error, arrival.headers()));
}

std::optional<api::ApiError> ApiServer::Core::check_model(std::string_view model) const {
  const auto& names = options_.served_model_names;
  if (model.empty() || std::ranges::find(names, model) != names.end()) return std::nullopt;
  return api::model_not_found(model);
}

http::Response ApiServer::Core::health() const {
  const EngineHealth engine = options_.health ? options_.health() : EngineHealth{};
  std::string_view status = "ok";
  if (engine.failure) {
    status = "failed";
  } else if (engine.step_age > options_.progress_deadline) {
    status = "stuck";
  } else if (draining_) {
    status = "draining";
  }
  const auto age_ms = std::chrono::duration_cast<std::chrono::milliseconds>(engine.step_age);
  return json_response(
      fmt::format("{{\"status\":\"{}\",\"step_age_ms\":{}}}", status, age_ms.count()),
      status == "ok" ? 200 : 503);
}

http::Response ApiServer::Core::models(std::string_view id) const {
  std::vector<api::ModelCard> cards;
  for (const std::string& name : options_.served_model_names) {
    cards.push_back({.id = name,
                     .created = created_,
                     .root = options_.model_root,
                     .max_model_len = parts_.engine.options().max_model_len});
  }
  if (id.empty()) return json_response(api::encode_models(cards));
  const auto card = std::ranges::find(cards, id, &api::ModelCard::id);
  if (card == cards.end()) return error_response(api::model_not_found(id));
  return json_response(api::encode_model(*card));
}

http::Response ApiServer::Core::render_metrics() {
  http::Response response{.status = 200,
                          .headers = {{"content-type", std::string(MetricsRegistry::kContentType)}},
                          .body = metrics_.render(parts_.engine.stats())};
  if (parts_.kv != nullptr) parts_.kv->render_metrics(response.body);
  if (options_.more_metrics) options_.more_metrics(response.body);
  return response;
}

// A sidecar's word that a ticket will not be used. On the loop: it must get through where requests
// are refused because too many wait.
http::Response ApiServer::Core::release_kv(const http::Request& request) {
  const auto body = parse_json(request.body, kBodyJsonLimits);
  const Json* params = body ? body->find("kv_transfer_params") : nullptr;
  const Status released = params != nullptr && params->is_object()
                              ? parts_.kv->release(*params)
                              : invalid_argument("an object is needed here");
  if (!released)
    return error_response(api::invalid_value("kv_transfer_params", released.error().message));
  return json_response("{}");
}

http::Response ApiServer::Core::expert_load() const {
  const Json document = options_.expert_load ? options_.expert_load() : Json();
  if (document.is_null())
    return error_response(api::from_http_status(404, "the model has no experts"));
  return json_response(document.dump());
}

}  // namespace wideep::server
