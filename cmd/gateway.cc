// `wideep gateway`: the public door with the picker in process.
#include "gateway/gateway.h"

#include "base/log.h"
#include "cmd/listen_options.h"
#include "cmd/picker_host.h"
#include "cmd/run_until_signal.h"
#include "cmd/verb.h"

namespace wideep::cmd {
namespace {

class GatewayVerb final : public Verb {
 public:
  GatewayVerb()
      : Verb("gateway",
             "The public HTTP door: picks an endpoint for each request and streams its answer.") {
    constexpr int64_t kDefaultPort = 8080;
    listen_.declare(options, kDefaultPort);
    picker_.with_fallbacks = true;
    picker_.declare(options);
    options.add("--access-log", &access_log_,
                {.group = "Server", .help = "A log line for each request."});
    options.add("--expose-routes", &expose_routes_,
                {.group = "Server",
                 .help = "Answers say which endpoints they took (x-wideep-decode, "
                         "x-wideep-prefill), and GET /endpoints lists all."});
  }

  int run() override {
    const Status done = serve();
    return done ? kExitOk : fail_to_start(done.error());
  }

 private:
  Status serve() {
    WD_ASSIGN_OR_RETURN(const net::Address address, listen_.address());
    WD_ASSIGN_OR_RETURN(http::ApiKeys keys, listen_.keys());
    net::EventLoop loop;
    http::Client client(loop, listen_.calls());
    WD_ASSIGN_OR_RETURN(const auto picker, PickerHost::create(picker_, loop, client));
    gateway::GatewayOptions gateway_options;
    gateway_options.limits = listen_.limits();
    gateway_options.access_log = access_log_;
    gateway_options.expose_routes = expose_routes_;
    gateway_options.version = WIDEEP_VERSION;
    gateway::Gateway gateway(loop, client, picker->picker(), std::move(keys), gateway_options);
    WD_ASSIGN_OR_RETURN(const net::Address bound, gateway.listen(address));
    log_info("gateway: listening on {}", bound.to_string());
    WD_TRY(write_ready_file(listen_.ready_file, url_of(bound)));
    run_until_signal(loop, [&] { gateway.drain_and_wait(listen_.shutdown_timeout); });
    return {};
  }

  ListenFlags listen_;
  PickerFlags picker_;
  bool access_log_ = true;
  bool expose_routes_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_gateway() {
  return std::make_unique<GatewayVerb>();
}

}  // namespace wideep::cmd
