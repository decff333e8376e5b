#include "epp/dns_discovery.h"

#include "base/log.h"
#include "net/lookup.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace wideep::epp {
namespace {

Result<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (code != std::errc{} || end != text.data() + text.size() || port == 0)
    return invalid_argument("'{}' is no port number", text.substr(0, 16));
  return port;
}

// "8000", "8000,8002", "8000-8007".
Result<std::vector<uint16_t>> parse_ports(std::string_view text) {
  std::vector<uint16_t> ports;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view part = text.substr(begin, end - begin);
    const size_t dash = part.find('-');
    WD_ASSIGN_OR_RETURN(const uint16_t first, parse_port(part.substr(0, dash)));
    uint16_t last = first;
    if (dash != std::string_view::npos) {
      WD_ASSIGN_OR_RETURN(last, parse_port(part.substr(dash + 1)));
    }
    if (last < first) return invalid_argument("ports {}: the last comes before the first", part);
    if (ports.size() + (last - first) + 1 > kPortsOfNameMax)
      return invalid_argument("more than {} ports", kPortsOfNameMax);
    for (int port = first; port <= last; ++port)
      ports.push_back(static_cast<uint16_t>(port));
    begin = end + 1;
  }
  return ports;
}

}  // namespace

Result<NamedEndpoints> parse_named_endpoints(std::string_view text) {
  NamedEndpoints named;
  const size_t equals = text.find('=');
  const std::string_view place = equals == std::string_view::npos ? text : text.substr(equals + 1);
  const size_t colon = place.rfind(':');
  if (equals == 0 || colon == 0 || colon == std::string_view::npos)
    return invalid_argument("'{}' is not HOST:PORT or role=HOST:PORT", text.substr(0, 64));
  auto ports = parse_ports(place.substr(colon + 1));
  if (!ports) return with_context(ports.error(), text.substr(0, 64));
  named.host = place.substr(0, colon);
  named.ports = std::move(*ports);
  if (equals != std::string_view::npos)
    named.labels[std::string(kRoleLabel)] = text.substr(0, equals);
  return named;
}

class DnsDiscovery::Watch : public std::enable_shared_from_this<Watch> {
 public:
  Watch(net::EventLoop& loop,
        EndpointPicker& picker,
        std::vector<EndpointSpec> fixed,
        std::vector<NamedEndpoints> names,
        Duration interval)
      : loop_(loop), picker_(picker), fixed_(std::move(fixed)), interval_(interval) {
    for (NamedEndpoints& named : names)
      names_.push_back({.named = std::move(named)});
  }

  void watch() {
    for (size_t i = 0; i < names_.size(); ++i)
      ask(i);
    loop_.post_after(interval_, [self = shared_from_this()] {
      if (!self->stopped_) self->watch();
    });
  }

  void stop() { stopped_ = true; }

 private:
  struct Name {
    NamedEndpoints named;
    std::vector<std::string> addresses;  // sorted
    bool is_asked = false;               // a lookup is under way
    bool is_known = true;                // the last answer was one
  };

  void ask(size_t index) {
    if (std::exchange(names_[index].is_asked, true)) return;
    net::start_lookup(loop_, names_[index].named.host,
                      [self = shared_from_this(), index](const net::HostAddresses& addresses) {
                        if (!self->stopped_) self->answered(index, addresses);
                      });
  }

  void answered(size_t index, const net::HostAddresses& answer) {
    Name& name = names_[index];
    name.is_asked = false;
    const bool is_known = answer || answer.error().code == ErrorCode::kNotFound;
    if (std::exchange(name.is_known, is_known) && !is_known)
      log_warning("{}; its {} addresses stay", answer.error().message, name.addresses.size());
    if (!is_known) return;
    std::vector<std::string> addresses = answer ? *answer : std::vector<std::string>();
    std::ranges::sort(addresses);
    if (addresses == name.addresses) return;
    name.addresses = std::move(addresses);
    log_info("{}: {} addresses", name.named.host, name.addresses.size());
    publish();
  }

  void publish() {
    std::vector<EndpointSpec> specs = fixed_;
    for (const Name& name : names_) {
      for (const std::string& address : name.addresses) {
        for (const uint16_t port : name.named.ports) {
          EndpointSpec spec{.address = {.host = address, .port = port, .path = {}},
                            .labels = name.named.labels};
          spec.name = name.named.host + "/" + spec.address.to_string();
          specs.push_back(std::move(spec));
        }
      }
    }
    picker_.set_endpoints(std::move(specs));
  }

  net::EventLoop& loop_;
  EndpointPicker& picker_;
  const std::vector<EndpointSpec> fixed_;
  const Duration interval_;
  std::vector<Name> names_;
  bool stopped_ = false;
};

DnsDiscovery::DnsDiscovery(net::EventLoop& loop,
                           EndpointPicker& picker,
                           std::vector<EndpointSpec> fixed,
                           std::vector<NamedEndpoints> names,
                           Duration interval)
    : watch_(std::make_shared<Watch>(loop, picker, std::move(fixed), std::move(names), interval)) {
  watch_->watch();
}

DnsDiscovery::~DnsDiscovery() {
  watch_->stop();
}

}  // namespace wideep::epp
