// Internal to server: the routes of an ApiServer and what they share.
#pragma once

#include "server/api_server.h"
#include "server/generation_call.h"
#include "server/prompt_builder.h"
#include "server/server_metrics.h"
#include "server/worker_pool.h"

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace wideep::server {

class ApiServer::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(ApiServerParts parts, ApiServerOptions options);

  void add_routes();
  void close();
  void drain_and_wait(Duration timeout);

  http::Server& http() { return *http_; }

  http::Server& metrics_http() { return *metrics_http_; }

  void on_step(const engine::EngineStats& stats);

 private:
  // A request on its way: who asked, under which id, since when.
  struct Arrival {
    http::Request request;
    http::Responder responder;
    std::string id;
    TimePoint time;

    http::Headers headers() const { return {{"x-request-id", id}}; }
  };

  using Work = void (Core::*)(const std::shared_ptr<Arrival>& arrival);

  http::ServerOptions http_options();
  std::optional<http::Response> guard(const http::Request& request) const;
  void add_health_routes(http::Server& server);
  void add_json_route(std::string_view path, Work work);

  // Takes a request from the loop to a worker, or refuses it.
  void dispatch(http::Request request, http::Responder responder, Work work);
  // The rest runs on workers.
  void chat(const std::shared_ptr<Arrival>& arrival);
  void completion(const std::shared_ptr<Arrival>& arrival);
  void tokenize(const std::shared_ptr<Arrival>& arrival);
  void detokenize(const std::shared_ptr<Arrival>& arrival);

  api::ApiResult<CallPlan> plan_chat(const Arrival& arrival) const;
  api::ApiResult<CallPlan> plan_completion(const Arrival& arrival) const;
  CallPlan begin_plan(Endpoint endpoint,
                      const Arrival& arrival,
                      const api::GenerationFields& fields) const;
  // Adds the n choices of one prompt.
  std::optional<api::ApiError> add_choices(CallPlan& plan,
                                           const api::GenerationFields& fields,
                                           const BuiltPrompt& prompt,
                                           int64_t seed) const;
  void run(const std::shared_ptr<Arrival>& arrival, api::ApiResult<CallPlan> plan);

  // What the request says about KV goes into the first choice: the others find its blocks.
  std::optional<api::ApiError> add_kv_wish(CallPlan& plan,
                                           const api::GenerationFields& fields) const;
  http::Response release_kv(const http::Request& request);
  std::optional<api::ApiError> check_model(std::string_view model) const;
  http::Response health() const;
  http::Response models(std::string_view id) const;
  http::Response render_metrics();
  http::Response expert_load() const;
  void refuse(const Arrival& arrival, const api::ApiError& error);

  ApiServerParts parts_;
  const ApiServerOptions options_;
  const PromptBuilder prompts_;
  const int64_t created_;
  ServerMetrics metrics_;
  QueueEstimate queue_;
  CallContext context_;
  std::atomic<bool> draining_{false};
  bool closed_ = false;  // on the loop
  std::optional<http::Server> http_;
  std::optional<http::Server> metrics_http_;
  std::optional<WorkerPool> workers_;  // ends first: its tasks use all of the above
};

}  // namespace wideep::server
