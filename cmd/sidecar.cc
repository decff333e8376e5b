// `wideep sidecar`: conducts prefill and decode in front of one decode engine.
#include "sidecar/sidecar.h"

#include "base/log.h"
#include "cmd/listen_options.h"
#include "cmd/run_until_signal.h"
#include "cmd/verb.h"

#include <array>

namespace wideep::cmd {
namespace {

class SidecarVerb final : public Verb {
 public:
  SidecarVerb()
      : Verb("sidecar",
             "In front of a decode engine: sends prompts to a prefill rank first, then decodes "
             "here.") {
    constexpr int64_t kDefaultPort = 8000;
    listen_.declare(options, kDefaultPort);
    options.add(
        "--engine", &engine_,
        {.group = "Legs", .help = "The local decode engine, host:port.", .value_name = "ADDRESS"});
    options.add("--allow-prefill", &sidecar_.allowed_prefill,
                {.group = "Legs",
                 .help = "A prefill host, or host:port, that may be called. Repeat it.",
                 .value_name = "HOST"});
    options.add("--enable-ssrf-protection", &ssrf_protection_,
                {.group = "Legs", .help = "Call only the prefill hosts of --allow-prefill."});
    options.add("--enable-prefiller-sampling", &sidecar_.sample_prefill,
                {.group = "Legs",
                 .help = "Try a random host of x-prefiller-host-port first, not the first."});
    options.add("--prefill-failure-policy", &policy_,
                {.group = "Legs",
                 .help = "What a failed prefill does to the request.",
                 .choices = {"fail", "retry-other", "decode-only"}});
    options.add("--route-headers", &sidecar_.route_headers,
                {.group = "Legs",
                 .help = "Answers say which prefill host computed the prompt: x-wideep-prefill."});
    options.refuse("--kv-connector", "the NIXL protocol, version 2, is the only one", {"nixlv2"});
    options.refuse("--decode-chunk-size", "chunked decode", {"0"});
  }

  int run() override {
    const Status done = serve();
    return done ? kExitOk : fail_to_start(done.error());
  }

 private:
  Status serve() {
    WD_ASSIGN_OR_RETURN(const net::Address address, listen_.address());
    WD_ASSIGN_OR_RETURN(sidecar_.engine, net::parse_address(engine_));
    sidecar_.allow_any_prefill = !ssrf_protection_;
    sidecar_.limits = listen_.limits();
    WD_ASSIGN_OR_RETURN(sidecar_.keys, listen_.keys());
    if (policy_ == "retry-other")
      sidecar_.on_prefill_failure = sidecar::PrefillFailurePolicy::kRetryOther;
    if (policy_ == "decode-only")
      sidecar_.on_prefill_failure = sidecar::PrefillFailurePolicy::kDecodeOnly;
    net::EventLoop loop;
    http::Client client(loop, listen_.calls());
    sidecar::Sidecar sidecar(loop, client, sidecar_);
    WD_ASSIGN_OR_RETURN(const net::Address bound, sidecar.listen(address));
    log_info("sidecar: {} in front of {}", bound.to_string(), engine_);
    WD_TRY(write_ready_file(listen_.ready_file, url_of(bound)));
    run_until_signal(loop, [&] { sidecar.drain_and_wait(listen_.shutdown_timeout); });
    return {};
  }

  ListenFlags listen_;
  sidecar::SidecarOptions sidecar_;
  std::string engine_ = "127.0.0.1:8200";
  std::string policy_ = "fail";
  bool ssrf_protection_ = true;
};

}  // namespace

std::unique_ptr<Verb> make_sidecar() {
  return std::make_unique<SidecarVerb>();
}

}  // namespace wideep::cmd
