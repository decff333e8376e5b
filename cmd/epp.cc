// `wideep epp`: the picker behind Envoy, over ext_proc.
#include "base/log.h"
#include "cmd/picker_host.h"
#include "cmd/run_until_signal.h"
#include "cmd/verb.h"
#include "epp/ext_proc.h"
#include "http/server.h"

namespace wideep::cmd {
namespace {

class EppVerb final : public Verb {
 public:
  EppVerb()
      : Verb("epp",
             "The endpoint picker for Envoy: external processing over gRPC, with gRPC health.") {
    picker_.declare(options);
    options.add("--grpc-host", &grpc_host_, {.group = "Server", .help = "Address to listen on."});
    options.add(
        "--grpc-port", &grpc_port_,
        {.group = "Server", .help = "Port to listen on; 0: one that is free.", .max = UINT16_MAX});
    options.add("--metrics-port", &metrics_port_,
                {.group = "Server",
                 .help = "Port of GET /metrics, at the same host; 0: none.",
                 .max = UINT16_MAX});
    options.add("--secure-serving", &secure_,
                {.group = "Server", .help = "TLS, with tls.crt and tls.key of --cert-path."});
    options.add("--cert-path", &cert_path_,
                {.group = "Server", .help = "Folder of the certificate.", .value_name = "DIR"});
    options.add("--max-body-bytes", &ext_proc_.body_bytes_max,
                {.group = "Server", .help = "Largest request body; more gets 413.", .min = 1});
    options.add("--drain-timeout", &drain_timeout_,
                {.group = "Server", .help = "How long SIGTERM waits for streams."});
    options.add("--ready-file", &ready_file_,
                {.group = "Server",
                 .help = "Write the address here once it is ready.",
                 .value_name = "FILE"});
    options.refuse("--pool-name",
                   "there is no Kubernetes here: endpoints come from file-discovery or --endpoint");
    options.refuse("--pool-namespace", "there is no Kubernetes here");
    options.refuse("--ha-enable-leader-election", "there is no Kubernetes here");
  }

  int run() override {
    const Status done = serve();
    return done ? kExitOk : fail_to_start(done.error());
  }

 private:
  Status serve() {
    net::EventLoop loop;
    http::Client client(loop);
    WD_ASSIGN_OR_RETURN(const auto picker, PickerHost::create(picker_, loop, client));
    ext_proc_.address = fmt::format("{}:{}", grpc_host_, grpc_port_);
    if (secure_) {
      if (cert_path_.empty()) return invalid_argument("--secure-serving needs --cert-path");
      ext_proc_.cert_file = cert_path_ + "/tls.crt";
      ext_proc_.key_file = cert_path_ + "/tls.key";
    }
    http::Server metrics(loop, {});
    WD_TRY(serve_metrics(metrics, picker->picker()));
    WD_ASSIGN_OR_RETURN(const auto server, epp::ExtProcServer::start(picker->picker(), ext_proc_));
    server->set_ready(true);
    const std::string address = fmt::format("{}:{}", grpc_host_, server->port());
    log_info("epp: ext_proc on {}", address);
    WD_TRY(write_ready_file(ready_file_, address));
    run_until_signal(loop, [&] {
      server->set_ready(false);
      server->stop(drain_timeout_);
    });
    return {};
  }

  Status serve_metrics(http::Server& server, epp::EndpointPicker& picker) const {
    if (metrics_port_ == 0) return {};
    server.route("GET", "/metrics", [&picker](const http::Request&, http::Responder responder) {
      http::Response response;
      response.headers.set("content-type", MetricsRegistry::kContentType);
      picker.render_metrics(response.body);
      responder.send(response);
    });
    WD_ASSIGN_OR_RETURN(const net::Address bound,
                        server.listen({grpc_host_, static_cast<uint16_t>(metrics_port_), {}}));
    log_info("epp: metrics on {}", bound.to_string());
    return {};
  }

  PickerFlags picker_;
  epp::ExtProcOptions ext_proc_;
  std::string grpc_host_ = "127.0.0.1";
  int64_t grpc_port_ = 9002;
  int64_t metrics_port_ = 0;
  bool secure_ = false;
  std::string cert_path_;
  std::string ready_file_;
  std::chrono::seconds drain_timeout_{30};
};

}  // namespace

std::unique_ptr<Verb> make_epp() {
  return std::make_unique<EppVerb>();
}

}  // namespace wideep::cmd
