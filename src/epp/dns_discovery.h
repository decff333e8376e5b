// Endpoints by a DNS name: each address that the name has is one, at each of some ports. A headless
// Service of Kubernetes is such a name: it has the addresses of the pods that are ready.
//
// The names are looked up again and again. A name that is not known has no addresses; when the name
// server cannot be asked, the addresses stay as they were, and that is logged once.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "epp/endpoint_picker.h"
#include "net/event_loop.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::epp {

struct NamedEndpoints {
  std::string host;
  std::vector<uint16_t> ports;
  Labels labels;
};

inline constexpr size_t kPortsOfNameMax = 64;

// "HOST:8000", "HOST:8000,8002", "HOST:8000-8007", or "role=" and one of these.
Result<NamedEndpoints> parse_named_endpoints(std::string_view text);

// Keeps a picker's endpoints equal to `fixed` and what the names stand for. Ownership: must be gone
// before the loop. Thread: created and destroyed on the loop's thread or while it is not running.
class DnsDiscovery {
 public:
  static constexpr std::chrono::milliseconds kInterval{1'000};

  DnsDiscovery(net::EventLoop& loop,
               EndpointPicker& picker,
               std::vector<EndpointSpec> fixed,
               std::vector<NamedEndpoints> names,
               Duration interval = kInterval);
  ~DnsDiscovery();

 private:
  class Watch;
  std::shared_ptr<Watch> watch_;  // shared with the timer and the lookups under way
};

}  // namespace wideep::epp
