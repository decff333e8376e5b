// The public HTTP door: asks the picker where a request goes, forwards it, streams the answer back.
//
//   client -> guard (keys, limits) -> picker -> endpoint (or its fallbacks) -> stream
//
// Internal headers and kv_transfer_params of a client are stripped: only this side of the door may
// set them. A request is sent to the next fallback only while nothing of it has been sent to the
// one before. Ownership: borrows loop, client and picker, which must outlive it. Thread: created
// and destroyed on the loop's thread or while it is not running.
#pragma once

#include "base/metrics.h"
#include "base/result.h"
#include "epp/endpoint_picker.h"
#include "gateway/gather.h"
#include "http/api_keys.h"
#include "http/client.h"
#include "http/server.h"
#include "net/event_loop.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace wideep::gateway {

// A path whose GET is answered with what all endpoints answer there, put together.
struct GatheredRoute {
  std::string path;
  std::string content_type;
  std::function<std::string(const std::vector<EndpointAnswer>& answers)> merge;
};

struct GatewayOptions {
  http::ServerLimits limits;
  std::chrono::milliseconds connect_timeout{1'000};
  std::chrono::milliseconds answer_timeout{
      600'000};                         // until the head, and between bytes of the body
  std::chrono::seconds retry_after{1};  // told with 429 and 503
  bool access_log = true;
  // Answers carry kDecodeRouteHeader and kPrefillRouteHeader, and GET /endpoints lists the
  // endpoints. Off, a gateway tells nothing of what is behind it.
  bool expose_routes = false;
  // kv_transfer_params of callers pass: they are our own sidecars. Off, they are taken out.
  bool trust_kv_params = false;
  bool endpoint_metrics = false;  // /metrics shows those of the endpoints too
  std::vector<GatheredRoute> gathered;
  std::string version;    // what GET /version says
  int32_t num_ranks = 0;  // x-data-parallel-rank must be less, if there is a number
};

class Gateway {
 public:
  Gateway(net::EventLoop& loop,
          http::Client& client,
          epp::EndpointPicker& picker,
          http::ApiKeys keys,
          GatewayOptions options);
  ~Gateway();

  Result<net::Address> listen(const net::Address& address);
  // See http::Server::drain. Not from the loop's thread.
  void drain_and_wait(Duration timeout);

 private:
  class Core;
  std::shared_ptr<Core> core_;  // shared with the requests under way
};

// Headers that only our own side may set: routing, destination and picker headers (spec: header
// registry).
bool is_internal_header(std::string_view name);

}  // namespace wideep::gateway
