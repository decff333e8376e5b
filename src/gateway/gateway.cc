#include "gateway/gateway.h"

#include "api/error.h"
#include "base/log.h"
#include "base/random.h"
#include "epp/filters.h"
#include "epp/headers.h"
#include "epp/request_body.h"
#include "http/forward.h"
#include "http/sse.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace wideep::gateway {
namespace {

constexpr std::string_view kRequestId = "x-request-id";
constexpr size_t kRequestIdBytesMax = 128;

http::Response error_response(const api::ApiError& error) {
  return {.status = error.status,
          .headers = {{"content-type", "application/json"}},
          .body = error.to_json()};
}

// One of the door's own: what stands behind it could not answer.
http::Response error_response(int status, std::string_view code, std::string_view message) {
  api::ApiError error = api::from_http_status(status, message);
  error.code = code;
  return error_response(error);
}

// The client's id if it is short and plain, else a new one.
std::string request_id(const http::Headers& headers) {
  const std::string_view given = headers.get(kRequestId);
  const bool is_plain = std::ranges::all_of(given, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.' ||
           c == ':';
  });
  if (!given.empty() && given.size() <= kRequestIdBytesMax && is_plain) return std::string(given);
  return fmt::format("{:016x}{:016x}", random_device_bits(), random_device_bits());
}

struct Metrics {
  explicit Metrics(MetricsRegistry& registry)
      : requests(
            registry.counter("wideep:gateway_requests_total", "Requests that were understood.")),
        refused(registry.counter("wideep:gateway_refused_total",
                                 "Requests that found no endpoint or were shed.")),
        fallbacks(registry.counter("wideep:gateway_fallbacks_total",
                                   "Requests sent to a fallback endpoint.")),
        upstream_errors(registry.counter("wideep:gateway_upstream_errors_total",
                                         "Requests that no endpoint took.")) {}

  Counter& requests;
  Counter& refused;
  Counter& fallbacks;
  Counter& upstream_errors;
};

// Open to everybody, and not worth a line in the log.
bool is_probe(std::string_view path) {
  return path == "/health" || path == "/ready" || path == "/live" || path == "/ping" ||
         path == "/version";
}

http::Response json_response(const Json& body) {
  return {.status = 200, .headers = {{"content-type", "application/json"}}, .body = body.dump()};
}

}  // namespace

bool is_internal_header(std::string_view name) {
  return std::ranges::any_of(epp::kInternalHeaders, [&](std::string_view h) {
    return http::equal_ignoring_case(h, name);
  });
}

class Gateway::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(net::EventLoop& loop,
       http::Client& client,
       epp::EndpointPicker& picker,
       http::ApiKeys keys,
       GatewayOptions options)
      : loop_(loop),
        client_(client),
        picker_(picker),
        keys_(std::move(keys)),
        options_(std::move(options)),
        metrics_(registry_),
        server_(loop, server_options()) {}

  void add_routes() {
    for (const char* path : {"/v1/chat/completions", "/v1/completions"})
      forward("POST", path, &Core::route);
    for (const char* path : {"/v1/models", "/v1/models/*"})
      forward("GET", path, &Core::route_anywhere);
    for (const char* path : {"/tokenize", "/detokenize"})
      forward("POST", path, &Core::route_anywhere);
    // Any rank can tell a ticket's issuer that nobody will come.
    if (options_.trust_kv_params) forward("POST", "/kv_transfer/release", &Core::route_anywhere);
    for (const char* path : {"/health", "/ready", "/ping"})
      answer(path, &Core::health);
    answer("/live", &Core::live);
    answer("/version", &Core::version);
    answer("/load", &Core::load);
    if (options_.expose_routes) answer("/endpoints", &Core::list_endpoints);
    add_gathered_routes();
  }

  http::Server& server() { return server_; }

 private:
  // One request on its way: the call to make and the endpoints still to try.
  struct Attempt {
    http::Request request;
    http::Responder responder;
    epp::Decision decision;
    std::string id;
    http::Headers headers;  // that the endpoint gets
    size_t next = 0;
    bool is_event_stream = false;  // the answer
  };

  // Requests that go to an endpoint.
  void forward(const char* method,
               const char* path,
               void (Core::*send)(http::Request, http::Responder)) {
    server_.route(
        method, path,
        [core = weak_from_this(), send](http::Request request, http::Responder responder) {
          if (const auto self = core.lock())
            (self.get()->*send)(std::move(request), std::move(responder));
        });
  }

  // Requests that are answered here.
  void answer(const char* path, http::Response (Core::*response)() const) {
    server_.route(
        "GET", path,
        [core = weak_from_this(), response](const http::Request&, http::Responder responder) {
          if (const auto self = core.lock()) responder.send((self.get()->*response)());
        });
  }

  // One more than asked for: /metrics shows at least the gateway's own.
  void add_gathered_routes() {
    std::vector<GatheredRoute> routes = options_.gathered;
    routes.push_back({"/metrics", std::string(MetricsRegistry::kContentType),
                      [this](const std::vector<EndpointAnswer>& answers) {
                        std::string text;
                        registry_.render(text);
                        picker_.render_metrics(text);
                        return text + merge_metrics(answers);
                      }});
    for (GatheredRoute& route : routes) {
      // Shared with the requests under way.
      const auto shared = std::make_shared<const GatheredRoute>(std::move(route));
      server_.route(
          "GET", shared->path,
          [core = weak_from_this(), shared](const http::Request&, http::Responder responder) {
            if (const auto self = core.lock()) self->answer_gathered(shared, std::move(responder));
          });
    }
  }

  void answer_gathered(const std::shared_ptr<const GatheredRoute>& route,
                       http::Responder responder) {
    const bool asks_endpoints = route->path != "/metrics" || options_.endpoint_metrics;
    auto snapshot = asks_endpoints ? picker_.snapshot() : std::make_shared<const epp::Snapshot>();
    gather(client_, std::move(snapshot), {.target = route->path},
           [self = shared_from_this(), route,
            responder = std::move(responder)](const std::vector<EndpointAnswer>& answers) mutable {
             http::Response response;
             response.headers.set("content-type", route->content_type);
             response.body = route->merge(answers);
             responder.send(response);
           });
  }

  http::ServerOptions server_options() {
    http::ServerOptions server;
    server.limits = options_.limits;
    server.render_error = [](int status, std::string_view message) {
      return error_response(api::from_http_status(status, message));
    };
    server.guard = [this](const http::Request& request) -> std::optional<http::Response> {
      if (is_probe(request.path) || keys_.caller(request.headers)) return std::nullopt;
      return error_response(api::invalid_api_key());
    };
    if (options_.access_log) {
      server.on_answered = [](const http::AccessRecord& record) {
        if (is_probe(record.path)) return;  // who watches over us asks all the time
        log_info("{} {} {} {} {} bytes {} ms", record.peer, record.method, record.path,
                 record.status, record.bytes_sent,
                 std::chrono::duration_cast<std::chrono::milliseconds>(record.duration).count());
      };
    }
    return server;
  }

  void route(http::Request request, http::Responder responder) {
    metrics_.requests.add(1);
    auto body = epp::parse_request_body(request.body);
    if (!body) {
      responder.send(error_response(api::invalid_body(body.error().message)));
      return;
    }
    if (const std::string* rank = request.headers.find(epp::kRankHeader);
        rank && !has_rank(*rank)) {
      responder.send(error_response(api::invalid_value(
          epp::kRankHeader, fmt::format("must be from 0 to {}.", options_.num_ranks - 1))));
      return;
    }
    // What only our own side may say about KV is taken out.
    if (!options_.trust_kv_params && body->json.find("kv_transfer_params") != nullptr) {
      body->json.erase("kv_transfer_params");
      request.body = body->json.dump();
    }
    body->pick.random = random_device_bits();
    body->pick.header = [&headers = request.headers](std::string_view name) {
      return headers.find(name);
    };
    auto decision = picker_.pick(body->pick);
    if (!decision) {
      refuse(decision.error(), responder);
      return;
    }
    try_next(make_attempt(std::move(request), std::move(responder), std::move(*decision)));
  }

  // Requests without a body to decide on: any endpoint.
  void route_anywhere(http::Request request, http::Responder responder) {
    epp::Decision decision{.snapshot = picker_.snapshot()};
    const auto& endpoints = decision.snapshot->endpoints;
    if (endpoints.empty()) {
      refuse({503, "rejected-no-endpoints", "no endpoint is ready"}, responder);
      return;
    }
    const size_t first = random_device_bits() % endpoints.size();
    for (size_t i = 0; i < endpoints.size(); ++i) {
      decision.destinations.push_back({&endpoints[(first + i) % endpoints.size()], 0});
    }
    try_next(make_attempt(std::move(request), std::move(responder), std::move(decision)));
  }

  bool has_rank(const std::string& text) const {
    if (options_.num_ranks == 0) return true;  // not for this door to judge
    int32_t rank = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), rank);
    return code == std::errc{} && end == text.data() + text.size() && rank >= 0 &&
           rank < options_.num_ranks;
  }

  void refuse(const epp::Refusal& refusal, http::Responder& responder) {
    metrics_.refused.add(1);
    http::Response response =
        error_response(refusal.http_status,
                       refusal.http_status == 429 ? "overloaded" : "no_endpoint", refusal.message);
    response.headers.set("retry-after", std::to_string(options_.retry_after.count()));
    response.headers.set(epp::kDroppedReasonHeader, refusal.reason);
    responder.send(response);
  }

  std::shared_ptr<Attempt> make_attempt(http::Request request,
                                        http::Responder responder,
                                        epp::Decision decision) {
    std::string id = request_id(request.headers);
    // Shared by the callbacks of one request's calls.
    http::Headers headers = forwarded_headers(request.headers, decision, id);
    return std::make_shared<Attempt>(Attempt{std::move(request), std::move(responder),
                                             std::move(decision), std::move(id),
                                             std::move(headers)});
  }

  void try_next(const std::shared_ptr<Attempt>& attempt) {
    const epp::Endpoint& endpoint = *attempt->decision.destinations[attempt->next++].endpoint;
    http::Call call;
    call.address = endpoint.address;
    call.method = attempt->request.method;
    call.target = http::forwarded_target(attempt->request);
    // The last endpoint gets the request itself, those before it a copy.
    const bool is_last = attempt->next == attempt->decision.destinations.size();
    call.headers = is_last ? std::move(attempt->headers) : attempt->headers;
    call.body = is_last ? std::move(attempt->request.body) : attempt->request.body;
    call.connect_timeout = options_.connect_timeout;
    call.head_timeout = options_.answer_timeout;
    call.idle_timeout = options_.answer_timeout;
    // Counted while it is under way, however it ends.
    std::shared_ptr<epp::EndpointLoad> load = endpoint.load;
    load->active_requests.fetch_add(1, std::memory_order_relaxed);
    http::ForwardEvents events;
    events.on_head = [this, attempt, &endpoint](http::ResponseHead& head) {
      attempt->is_event_stream = head.headers.get("content-type").starts_with("text/event-stream");
      head.headers.set(kRequestId, attempt->id);
      tell_route(*attempt, endpoint, head.headers);
    };
    events.last_words = [self = shared_from_this(), attempt](const http::CallFailure& failure,
                                                             std::string_view tail) {
      return self->last_words(*attempt, failure, tail);
    };
    events.on_failure = [self = shared_from_this(), attempt,
                         load](const http::CallFailure& failure) {
      load->active_requests.fetch_sub(1, std::memory_order_relaxed);
      self->on_failure(attempt, failure);
      return true;
    };
    events.on_done = [load](const http::CallResult&) {
      load->active_requests.fetch_sub(1, std::memory_order_relaxed);
    };
    http::forward(loop_, client_, std::move(call), attempt->responder, std::move(events));
  }

  // `headers` are the answer's: a sidecar has said which prefill rank it called, by address.
  void tell_route(const Attempt& attempt, const epp::Endpoint& decode, http::Headers& headers) {
    const std::string prefill(headers.get(epp::kPrefillRouteHeader));
    headers.erase(epp::kPrefillRouteHeader);
    headers.erase(epp::kDecodeRouteHeader);
    if (!options_.expose_routes) return;
    headers.set(epp::kDecodeRouteHeader, decode.name + " " + decode.host_port);
    if (prefill.empty()) return;
    const auto& endpoints = attempt.decision.snapshot->endpoints;
    const auto found = std::ranges::find(endpoints, prefill, &epp::Endpoint::host_port);
    headers.set(epp::kPrefillRouteHeader,
                (found == endpoints.end() ? "?" : found->name) + " " + prefill);
  }

  // Well when there is an endpoint that can finish a request: one that does more than prefill.
  http::Response health() const {
    const auto snapshot = picker_.snapshot();
    const bool can_decode =
        std::ranges::any_of(snapshot->endpoints, [](const epp::Endpoint& endpoint) {
          return (endpoint.roles & (epp::kNoRole | epp::kDecodeRole)) != 0;
        });
    return {.status = can_decode ? 200 : 503,
            .headers = {{"content-type", "application/json"}},
            .body = fmt::format("{{\"endpoints\":{}}}", snapshot->endpoints.size())};
  }

  http::Response live() const { return {.status = 200}; }

  http::Response version() const {
    Json body;
    body.set("version", options_.version);
    return json_response(body);
  }

  // Of all endpoints, as they said last.
  http::Response load() const {
    double requests = 0;
    for (const epp::Endpoint& endpoint : picker_.snapshot()->endpoints)
      requests += endpoint.metrics.running + endpoint.metrics.waiting;
    Json body;
    body.set("server_load", static_cast<int64_t>(requests));
    return json_response(body);
  }

  http::Response list_endpoints() const {
    Json list{Json::Array{}};
    const auto snapshot = picker_.snapshot();
    for (const epp::Endpoint& endpoint : snapshot->endpoints) {
      const std::string* role = endpoint.label(epp::kRoleLabel);
      Json item;
      item.set("name", endpoint.name);
      item.set("address", endpoint.host_port);
      item.set("role", role != nullptr ? Json(*role) : Json());
      item.set("waiting", endpoint.metrics.waiting);
      item.set("running", endpoint.metrics.running);
      item.set("kv_cache_usage", endpoint.metrics.kv_cache_usage);
      list.append(std::move(item));
    }
    Json body;
    body.set("endpoints", std::move(list));
    return json_response(body);
  }

  // Nothing has gone to the client. Another endpoint may be asked only if this one has seen
  // nothing.
  void on_failure(const std::shared_ptr<Attempt>& attempt, const http::CallFailure& failure) {
    const bool may_retry = failure.stage == http::CallFailure::Stage::kNothingSent &&
                           failure.error.code != ErrorCode::kCancelled;
    if (may_retry && attempt->next < attempt->decision.destinations.size()) {
      metrics_.fallbacks.add(1);
      try_next(attempt);
      return;
    }
    if (failure.error.code != ErrorCode::kCancelled) {  // else the client has left
      metrics_.upstream_errors.add(1);
      log_warning("request {}: {}", attempt->id, failure.error.message);
    }
    const bool timed_out = failure.error.code == ErrorCode::kTimeout;
    http::Response response =
        may_retry   ? error_response(503, "endpoint_unavailable", "the endpoint cannot be reached")
        : timed_out ? error_response(504, "endpoint_timeout", "the endpoint did not answer in time")
                    : error_response(502, "endpoint_failed", "the endpoint failed");
    response.headers.set("retry-after", std::to_string(options_.retry_after.count()));
    response.headers.set(kRequestId, attempt->id);
    attempt->responder.send(response);
  }

  // A stream of events that is cut between two of them ends with an error, as the endpoint itself
  // would end it; within one nothing can be said, and the connection is cut.
  std::string last_words(const Attempt& attempt,
                         const http::CallFailure& failure,
                         std::string_view tail) {
    if (failure.error.code == ErrorCode::kCancelled) return {};  // the client has left
    metrics_.upstream_errors.add(1);
    log_warning("request {}: {}", attempt.id, failure.error.message);
    if (!attempt.is_event_stream || tail != "\n\n") return {};
    std::string events;
    http::append_event(events, error_response(502, "endpoint_failed", "the endpoint failed").body);
    http::append_event(events, "[DONE]");
    return events;
  }

  http::Headers forwarded_headers(const http::Headers& from,
                                  const epp::Decision& decision,
                                  const std::string& id) const {
    http::Headers kept = http::end_to_end_headers(from);
    kept.erase_if([this](const http::Header& header) {
      const bool is_key =
          !keys_.empty() && (http::equal_ignoring_case(header.name, "authorization") ||
                             http::equal_ignoring_case(header.name, "x-api-key"));
      return is_key || is_internal_header(header.name);
    });
    kept.set(kRequestId, id);
    for (const auto& [name, value] : decision.headers)
      kept.set(name, value);
    return kept;
  }

  net::EventLoop& loop_;
  http::Client& client_;
  epp::EndpointPicker& picker_;
  const http::ApiKeys keys_;
  const GatewayOptions options_;
  MetricsRegistry registry_;
  Metrics metrics_;
  http::Server server_;
};

Gateway::Gateway(net::EventLoop& loop,
                 http::Client& client,
                 epp::EndpointPicker& picker,
                 http::ApiKeys keys,
                 GatewayOptions options)
    : core_(std::make_shared<Core>(loop, client, picker, std::move(keys), std::move(options))) {
  core_->add_routes();
}

Gateway::~Gateway() = default;

Result<net::Address> Gateway::listen(const net::Address& address) {
  return core_->server().listen(address);
}

void Gateway::drain_and_wait(Duration timeout) {
  core_->server().drain_and_wait(timeout);
}

}  // namespace wideep::gateway
