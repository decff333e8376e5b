#include "epp/ext_proc.h"

#include "base/file.h"
#include "base/random.h"
#include "epp/headers.h"
#include "epp/request_body.h"
#include "ext_proc.grpc.pb.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>

namespace wideep::epp {
namespace {

namespace pb = envoy::service::ext_proc::v3;

constexpr const char* kProcessorService = "envoy.service.ext_proc.v3.ExternalProcessor";
constexpr const char* kSubsetNamespace = "envoy.lb.subset_hint";
constexpr const char* kSubsetKey = "x-gateway-destination-endpoint-subset";
constexpr const char* kBalancerNamespace = "envoy.lb";

void set_header(pb::HeaderMutation& mutation, std::string_view name, std::string_view value) {
  pb::HeaderValueOption& option = *mutation.add_set_headers();
  option.set_append_action(pb::HeaderValueOption::OVERWRITE_IF_EXISTS_OR_ADD);
  option.mutable_header()->set_key(std::string(name));
  option.mutable_header()->set_raw_value(std::string(value));
}

// Endpoints that the data plane allows: a list, or (older) one text with commas. Null: it says
// nothing.
std::unique_ptr<std::vector<std::string>> allowed_endpoints(const pb::ProcessingRequest& request) {
  const auto& metadata = request.metadata_context().filter_metadata();
  const auto space = metadata.find(kSubsetNamespace);
  if (space == metadata.end()) return nullptr;
  const auto field = space->second.fields().find(kSubsetKey);
  if (field == space->second.fields().end()) return nullptr;
  auto allowed = std::make_unique<std::vector<std::string>>();
  const auto add = [&](std::string_view text) {
    while (!text.empty()) {
      const size_t comma = std::min(text.find(','), text.size());
      if (comma > 0) allowed->emplace_back(text.substr(0, comma));
      text.remove_prefix(std::min(comma + 1, text.size()));
    }
  };
  if (field->second.has_string_value()) add(field->second.string_value());
  for (const auto& item : field->second.list_value().values())
    add(item.string_value());
  return allowed;
}

std::string_view code_name(int status) {
  switch (status) {
    case 400:
      return "BadRequest";
    case 413:
      return "RequestTooLarge";
    case 429:
      return "ResourceExhausted";
    case 503:
      return "ServiceUnavailable";
    default:
      return "Internal";
  }
}

// One HTTP request as Envoy tells it, message by message; what to answer goes to `out`. No gRPC in
// here.
class Session {
 public:
  Session(EndpointPicker& picker, int64_t body_bytes_max)
      : picker_(picker), body_bytes_max_(body_bytes_max) {}

  ~Session() {
    if (load_ != nullptr) load_->active_requests.fetch_sub(1, std::memory_order_relaxed);
  }

  // False: the stream ends after what was put out.
  bool handle(const pb::ProcessingRequest& request, std::deque<pb::ProcessingResponse>& out) {
    switch (request.request_case()) {
      case pb::ProcessingRequest::kRequestHeaders:
        return on_request_headers(request, out);
      case pb::ProcessingRequest::kRequestBody:
        return on_request_body(request.request_body(), out);
      case pb::ProcessingRequest::kRequestTrailers: {
        // A body that trailers follow has no end_of_stream of its own.
        const bool goes_on = decided_ || decide(false, out);
        if (goes_on) out.emplace_back().mutable_request_trailers();
        return goes_on;
      }
      case pb::ProcessingRequest::kResponseHeaders:
        set_header(*out.emplace_back()
                        .mutable_response_headers()
                        ->mutable_response()
                        ->mutable_header_mutation(),
                   "x-went-into-resp-headers", "true");
        return true;
      case pb::ProcessingRequest::kResponseBody: {
        auto& piece = *out.emplace_back()
                           .mutable_response_body()
                           ->mutable_response()
                           ->mutable_body_mutation();
        piece.mutable_streamed_response()->set_body(request.response_body().body());
        piece.mutable_streamed_response()->set_end_of_stream(
            request.response_body().end_of_stream());
        return true;
      }
      case pb::ProcessingRequest::kResponseTrailers:
        out.emplace_back().mutable_response_trailers();
        return true;
      case pb::ProcessingRequest::REQUEST_NOT_SET:
        return true;
    }
    return true;
  }

 private:
  bool on_request_headers(const pb::ProcessingRequest& request,
                          std::deque<pb::ProcessingResponse>& out) {
    for (const pb::HeaderValue& header : request.request_headers().headers().headers()) {
      headers_[header.key()] = header.raw_value().empty() ? header.value() : header.raw_value();
    }
    allowed_ = allowed_endpoints(request);
    return !request.request_headers().end_of_stream() || choose_any(out);
  }

  bool on_request_body(const pb::HttpBody& body, std::deque<pb::ProcessingResponse>& out) {
    if (static_cast<int64_t>(body_.size() + body.body().size()) > body_bytes_max_) {
      return refuse({413, "", fmt::format("the body is larger than {} bytes", body_bytes_max_)},
                    out);
    }
    body_ += body.body();
    return !body.end_of_stream() || decide(true, out);
  }

  // A request without a body, e.g. GET /v1/models: any endpoint will do.
  bool choose_any(std::deque<pb::ProcessingResponse>& out) {
    const std::shared_ptr<const Snapshot> snapshot = picker_.snapshot();
    std::vector<const Endpoint*> candidates;
    for (const Endpoint& endpoint : snapshot->endpoints) {
      const bool is_allowed =
          allowed_ == nullptr || std::ranges::any_of(*allowed_, [&](const std::string& allowed) {
            return allowed == endpoint.host_port || allowed == endpoint.address.host;
          });
      if (is_allowed) candidates.push_back(&endpoint);
    }
    if (candidates.empty())
      return refuse({503, "rejected-no-endpoints", "no endpoint is ready"}, out);
    Decision decision{.snapshot = snapshot};
    decision.destinations.push_back({candidates[random_device_bits() % candidates.size()], 0});
    answer_headers(decision, out);
    return true;
  }

  // The body is complete. `ends_here`: no trailers follow it.
  bool decide(bool ends_here, std::deque<pb::ProcessingResponse>& out) {
    decided_ = true;
    auto body = parse_request_body(body_);
    if (!body) return refuse({400, "", body.error().message}, out);
    if (body->pick.model.empty()) return refuse({400, "", "'model' is missing"}, out);
    body->pick.random = random_device_bits();
    body->pick.header = [this](std::string_view name) -> const std::string* {
      const auto it = headers_.find(name);
      return it == headers_.end() ? nullptr : &it->second;
    };
    if (body->json.find("kv_transfer_params") != nullptr) {  // only our own side may say that
      body->json.erase("kv_transfer_params");
      body_ = body->json.dump();
    }
    const auto decision = picker_.pick(body->pick, allowed_.get());
    if (!decision) return refuse(decision.error(), out);
    load_ = decision->destinations.front().endpoint->load;
    load_->active_requests.fetch_add(1, std::memory_order_relaxed);
    answer_headers(*decision, out);
    answer_body(ends_here, out);
    return true;
  }

  void answer_headers(const Decision& decision, std::deque<pb::ProcessingResponse>& out) const {
    std::string destinations;
    for (const ScoredEndpoint& choice : decision.destinations) {
      destinations += (destinations.empty() ? "" : ",") + choice.endpoint->host_port;
    }
    pb::ProcessingResponse& response = out.emplace_back();
    pb::CommonResponse& common = *response.mutable_request_headers()->mutable_response();
    common.set_clear_route_cache(true);
    pb::HeaderMutation& mutation = *common.mutable_header_mutation();
    for (const std::string_view name : kInternalHeaders) {
      if (name != kDestinationHeader && !decision.headers.contains(std::string(name))) {
        mutation.add_remove_headers(std::string(name));
      }
    }
    set_header(mutation, kDestinationHeader, destinations);
    if (!body_.empty()) set_header(mutation, "content-length", std::to_string(body_.size()));
    for (const auto& [name, value] : decision.headers)
      set_header(mutation, name, value);
    auto& balancer = (*response.mutable_dynamic_metadata()->mutable_fields())[kBalancerNamespace];
    (*balancer.mutable_struct_value()->mutable_fields())[std::string(kDestinationHeader)]
        .set_string_value(destinations);
  }

  void answer_body(bool ends_here, std::deque<pb::ProcessingResponse>& out) const {
    size_t sent = 0;
    do {
      const size_t piece = std::min(body_.size() - sent, ExtProcServer::kPieceBytesMax);
      auto& mutation =
          *out.emplace_back().mutable_request_body()->mutable_response()->mutable_body_mutation();
      mutation.mutable_streamed_response()->set_body(body_.substr(sent, piece));
      sent += piece;
      mutation.mutable_streamed_response()->set_end_of_stream(ends_here && sent == body_.size());
    } while (sent < body_.size());
  }

  static bool refuse(const Refusal& refusal, std::deque<pb::ProcessingResponse>& out) {
    pb::ImmediateResponse& response = *out.emplace_back().mutable_immediate_response();
    response.mutable_status()->set_code(refusal.http_status);
    response.set_body(
        fmt::format("inference error: {} - {}", code_name(refusal.http_status), refusal.message));
    if (!refusal.reason.empty()) {
      set_header(*response.mutable_headers(), kDroppedReasonHeader, refusal.reason);
      set_header(*response.mutable_headers(), "retry-after", "1");
    }
    return false;
  }

  EndpointPicker& picker_;
  const int64_t body_bytes_max_;
  std::map<std::string, std::string, std::less<>> headers_;
  std::unique_ptr<std::vector<std::string>> allowed_;
  std::string body_;
  // Shared with the endpoint's snapshots: counts this request while it is under way.
  std::shared_ptr<EndpointLoad> load_;
  bool decided_ = false;
};

// A stream: reads one message at a time, writes what the session answers, in order. Deletes itself
// when it is done, as gRPC's reactors do.
class Stream final : public grpc::ServerBidiReactor<pb::ProcessingRequest, pb::ProcessingResponse> {
 public:
  Stream(EndpointPicker& picker, int64_t body_bytes_max) : session_(picker, body_bytes_max) {
    StartRead(&request_);
  }

  // NOLINTBEGIN(readability-identifier-naming): the library's names
  void OnReadDone(bool ok) override {
    const std::scoped_lock lock(mutex_);
    if (ok && session_.handle(request_, out_)) {
      StartRead(&request_);
    } else {
      input_ended_ = true;
    }
    write_next();
  }

  void OnWriteDone(bool ok) override {
    const std::scoped_lock lock(mutex_);
    writing_ = false;
    out_.pop_front();
    if (!ok) {
      out_.clear();
      input_ended_ = true;
    }
    write_next();
  }

  void OnDone() override { std::unique_ptr<Stream>(this).reset(); }

  // NOLINTEND(readability-identifier-naming)

 private:
  void write_next() {
    if (writing_) return;
    if (!out_.empty()) {
      writing_ = true;
      StartWrite(&out_.front());
    } else if (input_ended_ && !finished_) {
      finished_ = true;
      Finish(grpc::Status::OK);
    }
  }

  std::mutex mutex_;
  Session session_;
  pb::ProcessingRequest request_;
  std::deque<pb::ProcessingResponse> out_;
  bool writing_ = false;
  bool input_ended_ = false;
  bool finished_ = false;
};

class Service final : public pb::ExternalProcessor::CallbackService {
 public:
  Service(EndpointPicker& picker, int64_t body_bytes_max)
      : picker_(picker), body_bytes_max_(body_bytes_max) {}

  grpc::ServerBidiReactor<pb::ProcessingRequest, pb::ProcessingResponse>* Process(
      grpc::CallbackServerContext* /*context*/) override {
    return std::make_unique<Stream>(picker_, body_bytes_max_).release();  // OnDone takes it back
  }

 private:
  EndpointPicker& picker_;
  int64_t body_bytes_max_;
};

class Server final : public ExtProcServer {
 public:
  Server(EndpointPicker& picker, const ExtProcOptions& options)
      : service_(picker, options.body_bytes_max) {}

  ~Server() override {
    if (server_ != nullptr) stop(std::chrono::milliseconds(0));
  }

  Status start(const ExtProcOptions& options) {
    auto credentials = grpc::InsecureServerCredentials();
    if (!options.cert_file.empty()) {
      constexpr int64_t kPemBytesMax = 1 << 20;
      WD_ASSIGN_OR_RETURN(const std::string cert, read_file(options.cert_file, kPemBytesMax));
      WD_ASSIGN_OR_RETURN(const std::string key, read_file(options.key_file, kPemBytesMax));
      grpc::SslServerCredentialsOptions ssl;
      ssl.pem_key_cert_pairs.push_back({key, cert});
      credentials = grpc::SslServerCredentials(ssl);
    }
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    builder.AddListeningPort(options.address, credentials, &port_);
    builder.RegisterService(&service_);
    builder.SetMaxReceiveMessageSize(
        static_cast<int>(std::min<int64_t>(options.body_bytes_max * 2, INT32_MAX)));
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) {
      return error(ErrorCode::kUnavailable, "cannot listen on {} for gRPC", options.address);
    }
    server_->GetHealthCheckService()->SetServingStatus("liveness", true);
    set_ready(false);
    return {};
  }

  int port() const override { return port_; }

  void set_ready(bool ready) override {
    for (const char* service : {"", "readiness", kProcessorService}) {
      server_->GetHealthCheckService()->SetServingStatus(service, ready);
    }
  }

  void stop(std::chrono::milliseconds grace) override {
    server_->Shutdown(std::chrono::system_clock::now() + grace);
    server_->Wait();
  }

 private:
  Service service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

}  // namespace

Result<std::unique_ptr<ExtProcServer>> ExtProcServer::start(EndpointPicker& picker,
                                                            const ExtProcOptions& options) {
  if (options.cert_file.empty() != options.key_file.empty()) {
    return invalid_argument("a certificate and a key go together");
  }
  auto server = std::make_unique<Server>(picker, options);
  WD_TRY(server->start(options));
  return server;
}

}  // namespace wideep::epp
