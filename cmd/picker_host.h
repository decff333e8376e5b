// The picker with its sources, as gateway and epp run it: configuration, discovery, scraping.
#pragma once

#include "base/options.h"
#include "base/result.h"
#include "epp/discovery.h"
#include "epp/dns_discovery.h"
#include "epp/endpoint_picker.h"
#include "epp/scraper.h"
#include "http/client.h"
#include "net/event_loop.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace wideep::cmd {

struct PickerFlags {
  std::string config_file;
  std::string config_text;
  std::vector<std::string> endpoints;       // host:port, or role=host:port
  std::vector<std::string> endpoint_names;  // host:ports, or role=host:ports
  std::string endpoints_file;               // as of file-discovery, watched
  int64_t refresh_ms = 50;
  bool with_fallbacks = false;  // in the configuration that is used if none is given

  void declare(OptionSet& options);
};

// Ownership: borrows loop and client. Thread: created while the loop is not running.
class PickerHost {
 public:
  static Result<std::unique_ptr<PickerHost>> create(const PickerFlags& flags,
                                                    net::EventLoop& loop,
                                                    http::Client& client);

  epp::EndpointPicker& picker() { return *picker_; }

 private:
  Status discover(const PickerFlags& flags,
                  net::EventLoop& loop,
                  std::optional<epp::FileDiscoveryOptions> file);

  std::unique_ptr<epp::EndpointPicker> picker_;
  std::unique_ptr<epp::FileDiscovery> discovery_;
  std::unique_ptr<epp::DnsDiscovery> dns_discovery_;
  std::unique_ptr<epp::Scraper> scraper_;
};

}  // namespace wideep::cmd
