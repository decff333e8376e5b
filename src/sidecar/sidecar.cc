#include "sidecar/sidecar.h"

#include "base/log.h"
#include "base/random.h"
#include "http/field_list.h"
#include "http/forward.h"
#include "sidecar/legs.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace wideep::sidecar {
namespace {

constexpr std::string_view kPrefillHeader = "x-prefiller-host-port";
constexpr std::string_view kRequestId = "x-request-id";
constexpr std::string_view kPrefillRouteHeader = "x-wideep-prefill";
// How long the answer of a prefill that nobody wants any more may take to arrive.
constexpr std::chrono::seconds kLastAnswerPatience{5};
constexpr std::string_view kForbidden = "Forbidden: prefill target not allowed by SSRF protection";

// vLLM's flat form, which sidecars of this protocol answer with.
http::Response error_response(int status, std::string_view type, std::string_view message) {
  Json body;
  body.set("object", "error");
  body.set("message", message);
  body.set("type", type);
  body.set("param", "");
  body.set("code", status);
  return {.status = status, .headers = {{"content-type", "application/json"}}, .body = body.dump()};
}

std::string new_uuid() {
  const uint64_t high = (random_device_bits() & ~0xF000ULL) | 0x4000ULL;
  const uint64_t low = (random_device_bits() & ~(3ULL << 62)) | (2ULL << 62);
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, high >> 16 & 0xFFFF,
                     high & 0xFFFF, low >> 48, low & 0xFFFFFFFFFFFFULL);
}

// The hosts of every x-prefiller-host-port header, in order.
std::vector<std::string> prefill_hosts(const http::Headers& headers) {
  std::vector<std::string> hosts;
  for (const http::Header& header : headers) {
    if (!http::equal_ignoring_case(header.name, kPrefillHeader)) continue;
    std::string_view rest = header.value;
    while (!rest.empty()) {
      const std::string_view host = http::take_element(rest);
      if (!host.empty()) hosts.emplace_back(host);
    }
  }
  return hosts;
}

// Another prefill host would say the same; not so of one that is full or too slow.
bool is_fault_of_the_request(int status) {
  constexpr int kTimeout = 408;
  constexpr int kTooMany = 429;
  return status / 100 == 4 && status != kTimeout && status != kTooMany;
}

// A request on its two legs.
struct Journey {
  http::Request request;
  http::Responder responder;
  Json body;
  std::string id;
  std::vector<net::Address> prefillers = {};  // still to try, in order
  http::CallHandle prefill_call = {};
  std::string prefiller = {};  // that is asked, or has answered
  // The prefill leg's answer.
  int status = 0;
  http::Headers headers = {};
  std::string answer = {};
  Json params = {};  // that it gave, to pull with
};

}  // namespace

class Sidecar::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(net::EventLoop& loop, http::Client& client, SidecarOptions options)
      : loop_(loop),
        client_(client),
        options_(std::move(options)),
        releases_(std::make_shared<KvReleases>(loop, client, options_.release)),
        server_(loop, server_options()) {}

  void add_routes() {
    server_.route("GET", "/health",
                  [](const http::Request&, http::Responder responder) { responder.send({}); });
    const auto completion = [core = weak_from_this()](http::Request request,
                                                      http::Responder responder) {
      if (const auto self = core.lock()) self->complete(std::move(request), std::move(responder));
    };
    for (const char* path : {"/v1/chat/completions", "/v1/completions"})
      server_.route("POST", path, completion);
    const auto pass = [core = weak_from_this()](http::Request request, http::Responder responder) {
      if (const auto self = core.lock()) self->pass_on(std::move(request), std::move(responder));
    };
    for (const char* method : {"GET", "POST", "PUT", "DELETE"})
      server_.route(method, "/*", pass);
  }

  http::Server& server() { return server_; }

 private:
  http::ServerOptions server_options() {
    http::ServerOptions server;
    server.limits = options_.limits;
    server.render_error = [](int status, std::string_view message) {
      return error_response(status, "BadRequestError", message);
    };
    server.guard = [this](const http::Request& request) -> std::optional<http::Response> {
      if (request.path == "/health" || options_.keys.caller(request.headers)) return std::nullopt;
      return error_response(401, "Unauthorized", "a valid API key is needed");
    };
    return server;
  }

  void complete(http::Request request, http::Responder responder) {
    auto body = parse_json(request.body, kBodyJsonLimits);
    if (!body || !body->is_object()) {
      responder.send(error_response(
          400, "BadRequestError", body ? "the body must be a JSON object" : body.error().message));
      return;
    }
    strip_internal_fields(*body);
    const std::vector<std::string> hosts = prefill_hosts(request.headers);
    request.headers.erase(kPrefillHeader);
    // Shared by the callbacks of the two legs.
    auto journey = std::make_shared<Journey>(Journey{.request = std::move(request),
                                                     .responder = std::move(responder),
                                                     .body = std::move(*body),
                                                     .id = new_uuid()});
    if (hosts.empty() || has_several_prompts(journey->body)) {
      decode(journey, std::nullopt);
      return;
    }
    if (!take_prefillers(hosts, *journey)) {
      journey->responder.send({.status = 403, .headers = {}, .body = std::string(kForbidden)});
      return;
    }
    prefill(journey);
  }

  // The hosts as addresses, in the order they are tried. False if one is not allowed or is no
  // address.
  bool take_prefillers(std::vector<std::string> hosts, Journey& journey) const {
    if (options_.sample_prefill)
      std::swap(hosts.front(), hosts[random_device_bits() % hosts.size()]);
    for (const std::string& host : hosts) {
      const auto address = net::parse_address(host);
      if (!address || address->is_unix()) return false;
      const bool is_allowed =
          options_.allow_any_prefill ||
          std::ranges::any_of(options_.allowed_prefill, [&](const std::string& allowed) {
            return allowed == address->host || allowed == address->to_string();
          });
      if (!is_allowed) return false;
      journey.prefillers.push_back(*address);
    }
    return true;
  }

  // Leg 1.
  void prefill(const std::shared_ptr<Journey>& journey) {
    http::Call call;
    call.address = journey->prefillers.front();
    journey->prefiller = call.address.to_string();
    journey->prefillers.erase(journey->prefillers.begin());
    call.method = "POST";
    call.target = journey->request.path;
    call.headers = http::end_to_end_headers(journey->request.headers);
    call.headers.set(kRequestId, journey->id);
    call.body = prefill_body(journey->body).dump();
    call.connect_timeout = options_.connect_timeout;
    call.head_timeout = options_.prefill_timeout;
    journey->answer.clear();
    const auto limit = static_cast<size_t>(options_.prefill_body_bytes_max);
    journey->prefill_call = client_.start(
        std::move(call),
        {.on_head =
             [journey](const http::ResponseHead& head) {
               journey->status = head.status;
               journey->headers = http::end_to_end_headers(head.headers);
             },
         .on_body =
             [journey, limit](std::string_view bytes) {
               if (journey->answer.size() + bytes.size() <= limit) journey->answer += bytes;
             },
         .on_done = [self = shared_from_this(), journey](
                        const http::CallResult& result) { self->prefill_done(journey, result); }});
    // An answer that is on its way names KV that somebody must let go.
    journey->responder.on_disconnect(
        [call = journey->prefill_call]() mutable { call.hang_up(kLastAnswerPatience); });
  }

  void prefill_done(const std::shared_ptr<Journey>& journey, const http::CallResult& result) {
    const bool is_gone = journey->responder.is_gone();
    if (result && journey->status / 100 == 2) {
      const auto answer = parse_json(journey->answer);
      const Json* params = answer ? answer->find("kv_transfer_params") : nullptr;
      if (params != nullptr) journey->params = *params;
      if (is_gone) return release(*journey);
      if (!answer) {
        journey->responder.send(
            error_response(400, "BadRequestError", "the prefill's answer is not JSON"));
        return;
      }
      if (journey->params.is_null())
        log_warning("request {}: prefill gave no parameters", journey->id);
      decode(journey, cached_tokens(*answer));
      return;
    }
    if (is_gone) return;
    const bool is_clients_fault = result && is_fault_of_the_request(journey->status);
    log_warning("request {}: prefill failed: {}", journey->id,
                result ? fmt::format("HTTP {}", journey->status) : result.error().error.message);
    const PrefillFailurePolicy policy = options_.on_prefill_failure;
    const bool is_final = is_clients_fault || policy == PrefillFailurePolicy::kFail;
    if (!is_final && policy == PrefillFailurePolicy::kDecodeOnly) {
      decode(journey, std::nullopt);
    } else if (!is_final && !journey->prefillers.empty()) {
      prefill(journey);
    } else {
      pass_failure_on(*journey, result);
    }
  }

  static void pass_failure_on(Journey& journey, const http::CallResult& result) {
    if (result) {
      journey.responder.send(
          {journey.status, std::move(journey.headers), std::move(journey.answer)});
    } else {
      journey.responder.send(
          error_response(502, "BadGateway", "the prefill node cannot be reached"));
    }
  }

  // Leg 2, with what the prefill gave. With `cached` the answer's cached_tokens is what the prefill
  // leg reported. A leg that fails before it begins may never have reached the engine.
  void decode(const std::shared_ptr<Journey>& journey, std::optional<int64_t> cached) {
    http::Call call = call_to_engine(journey->request);
    call.headers.set(kRequestId, journey->id);
    call.body = decode_body(journey->body, journey->params).dump();
    http::ForwardEvents events;
    if (cached) {
      // Shared by the two callbacks of the answer.
      auto rewriter = std::make_shared<std::optional<UsageRewriter>>();
      const std::string told = options_.route_headers ? journey->prefiller : "";
      events.on_failure = [self = shared_from_this(), journey](const http::CallFailure&) {
        self->release(*journey);
        return false;
      };
      events.on_head = [self = shared_from_this(), journey, rewriter, told,
                        tokens = *cached](http::ResponseHead& head) {
        if (head.status / 100 != 2) self->release(*journey);
        if (!told.empty()) head.headers.set(kPrefillRouteHeader, told);
        const bool is_stream =
            http::media_type(head.headers.get("content-type")) == "text/event-stream";
        rewriter->emplace(is_stream, tokens);
      };
      events.rewrite = [rewriter](std::string_view bytes, bool end) {
        return (*rewriter)->feed(bytes, end);
      };
    }
    send_to_engine(std::move(call), journey->responder, std::move(events));
  }

  // Nobody will pull what the prefill keeps.
  void release(const Journey& journey) {
    if (journey.params.is_null()) return;
    http::Call call = call_to_engine(journey.request);
    call.headers.set(kRequestId, journey.id);
    releases_->release(std::move(call), journey.params, journey.id);
  }

  void pass_on(http::Request request, http::Responder responder) {
    http::Call call = call_to_engine(request);
    call.body = std::move(request.body);
    send_to_engine(std::move(call), std::move(responder), {});
  }

  http::Call call_to_engine(const http::Request& request) const {
    http::Call call;
    call.address = options_.engine;
    call.method = request.method;
    call.target = http::forwarded_target(request);
    call.headers = http::end_to_end_headers(request.headers);
    call.connect_timeout = options_.connect_timeout;
    call.head_timeout = options_.answer_timeout;
    call.idle_timeout = options_.answer_timeout;
    return call;
  }

  void send_to_engine(http::Call call, http::Responder responder, http::ForwardEvents events) {
    events.on_failure = [responder, before = std::move(events.on_failure)](
                            const http::CallFailure& failure) mutable {
      if (before) before(failure);
      const bool is_down = failure.stage == http::CallFailure::Stage::kNothingSent;
      responder.send(is_down
                         ? error_response(503, "ServiceUnavailable", "The decode node is not ready")
                         : error_response(502, "BadGateway", "the decode node failed"));
      return true;
    };
    http::forward(loop_, client_, std::move(call), std::move(responder), std::move(events));
  }

  net::EventLoop& loop_;
  http::Client& client_;
  const SidecarOptions options_;
  const std::shared_ptr<KvReleases> releases_;  // shared with its calls under way
  http::Server server_;
};

Sidecar::Sidecar(net::EventLoop& loop, http::Client& client, SidecarOptions options)
    : core_(std::make_shared<Core>(loop, client, std::move(options))) {
  core_->add_routes();
}

Sidecar::~Sidecar() = default;

Result<net::Address> Sidecar::listen(const net::Address& address) {
  return core_->server().listen(address);
}

void Sidecar::drain_and_wait(Duration timeout) {
  core_->server().drain_and_wait(timeout);
}

}  // namespace wideep::sidecar
