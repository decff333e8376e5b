// file-discovery: endpoints from a YAML or JSON file, read again when it changes.
//   endpoints: [{name, namespace: default, address: 10.0.0.7, port: "8000",
//                labels: {llm-d.ai/role: decode}}]
// A file that cannot be read or has a mistake leaves the old set in place and is logged once.
#pragma once

#include "base/result.h"
#include "epp/config.h"
#include "epp/endpoint_picker.h"
#include "net/event_loop.h"

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::epp {

inline constexpr int64_t kDiscoveryBytesMax = 1 << 20;

Result<std::vector<EndpointSpec>> parse_endpoints(std::string_view yaml);

// Keeps a picker's endpoints equal to the file. Ownership: must be gone before the loop. Thread:
// created and destroyed on the loop's thread or while it is not running.
class FileDiscovery {
 public:
  FileDiscovery(net::EventLoop& loop, EndpointPicker& picker, FileDiscoveryOptions options);
  ~FileDiscovery();

  // Reads the file now; the error if it is wrong.
  Status load();

 private:
  class Watch;
  std::shared_ptr<Watch> watch_;  // shared with the timer under way
};

}  // namespace wideep::epp
