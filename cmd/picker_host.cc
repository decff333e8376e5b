#include "cmd/picker_host.h"

#include "base/file.h"
#include "base/log.h"
#include "base/yaml.h"

namespace wideep::cmd {
namespace {

constexpr const char* kDefaultConfig =
    "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

// Nobody takes an endpoint that is down off the list: requests go on to another.
constexpr const char* kFallbacksConfig =
    "plugins: [{type: max-score-picker, parameters: {maxNumOfEndpoints: 3}}]\n";

// "prefill=10.0.0.1:8000" or "10.0.0.1:8000".
Result<epp::EndpointSpec> parse_endpoint(const std::string& text) {
  const size_t equals = text.find('=');
  const std::string address = equals == std::string::npos ? text : text.substr(equals + 1);
  epp::EndpointSpec spec{.name = "default/" + address};
  WD_ASSIGN_OR_RETURN(spec.address, net::parse_address(address));
  if (equals != std::string::npos)
    spec.labels[std::string(epp::kRoleLabel)] = text.substr(0, equals);
  return spec;
}

}  // namespace

void PickerFlags::declare(OptionSet& options) {
  options.add(
      "--config-file", &config_file,
      {.group = "Picker",
       .help = "EndpointPickerConfig in YAML; queue, KV use and prefix scorers if there is none.",
       .value_name = "FILE"});
  options.add("--config-text", &config_text, {.group = "Picker", .help = "The same, as text."});
  options.add("--endpoint", &endpoints,
              {.group = "Picker", .help = "An endpoint, host:port or role=host:port; repeat it."});
  options.add("--endpoint-dns", &endpoint_names,
              {.group = "Picker",
               .help = "Each address of a DNS name is an endpoint, at each port: host:8000, "
                       "host:8000-8007 or role=host:ports; repeat it. Names are looked up every "
                       "second: a headless Service of Kubernetes tells which pods are ready."});
  options.add("--endpoints-file", &endpoints_file,
              {.group = "Picker",
               .help = "The endpoints, in file-discovery's form; read again when it changes.",
               .value_name = "FILE"});
  options.add("--refresh-metrics-interval", &refresh_ms,
              {.group = "Picker",
               .help = "Milliseconds between scrapes of an endpoint's /metrics.",
               .value_name = "MS",
               .min = 1});
}

Result<std::unique_ptr<PickerHost>> PickerHost::create(const PickerFlags& flags,
                                                       net::EventLoop& loop,
                                                       http::Client& client) {
  std::string text = flags.config_text;
  if (text.empty()) {
    text = kDefaultConfig;
    if (flags.with_fallbacks) text += kFallbacksConfig;
  }
  std::string source = "--config-text";
  if (!flags.config_file.empty()) {
    WD_ASSIGN_OR_RETURN(text, read_file(flags.config_file, kYamlBytesMax));
    source = flags.config_file;
  }
  auto config = epp::parse_picker_config(text);
  if (!config) return with_context(config.error(), source);
  for (const std::string& note : config->notes)
    log_info("{}: {}", source, note);
  for (const std::string& warning : config->warnings)
    log_warning("{}: {}", source, warning);
  auto discovery = config->discovery;
  if (!flags.endpoints_file.empty()) {
    if (discovery) return invalid_argument("--endpoints-file: {} has file-discovery", source);
    discovery = epp::FileDiscoveryOptions{.path = flags.endpoints_file, .watch_file = true};
  }

  auto host = std::make_unique<PickerHost>();
  host->picker_ = std::make_unique<epp::EndpointPicker>(std::move(*config), real_clock());
  WD_TRY(host->discover(flags, loop, std::move(discovery)));
  host->scraper_ = std::make_unique<epp::Scraper>(
      loop, client, *host->picker_,
      epp::ScraperOptions{.interval = std::chrono::milliseconds(flags.refresh_ms)}, real_clock());
  return host;
}

Status PickerHost::discover(const PickerFlags& flags,
                            net::EventLoop& loop,
                            std::optional<epp::FileDiscoveryOptions> file) {
  if (file) {
    if (!flags.endpoints.empty() || !flags.endpoint_names.empty())
      return invalid_argument(
          "--endpoint and --endpoint-dns exclude file-discovery and --endpoints-file");
    discovery_ = std::make_unique<epp::FileDiscovery>(loop, *picker_, *std::move(file));
    return discovery_->load();
  }
  std::vector<epp::EndpointSpec> specs;
  for (const std::string& endpoint : flags.endpoints) {
    WD_ASSIGN_OR_RETURN(epp::EndpointSpec spec, parse_endpoint(endpoint));
    specs.push_back(std::move(spec));
  }
  std::vector<epp::NamedEndpoints> names;
  for (const std::string& name : flags.endpoint_names) {
    auto named = epp::parse_named_endpoints(name);
    if (!named) return with_context(named.error(), "--endpoint-dns");
    names.push_back(std::move(*named));
  }
  picker_->set_endpoints(specs);
  if (!names.empty())
    dns_discovery_ =
        std::make_unique<epp::DnsDiscovery>(loop, *picker_, std::move(specs), std::move(names));
  return {};
}

}  // namespace wideep::cmd
