// The picker for Envoy: the external processing protocol over gRPC (full-duplex streamed bodies),
// with gRPC's health service. The one place of the project that knows gRPC and protobuf.
//
// For each request the headers wait until the body is complete; then one header answer names the
// destination (header and dynamic metadata alike) and the body goes back in pieces. Response bodies
// are passed through as they come. Thread: serves on threads of its own; start and stop from one
// thread.
#pragma once

#include "base/result.h"
#include "epp/endpoint_picker.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace wideep::epp {

struct ExtProcOptions {
  std::string address = "127.0.0.1:0";  // port 0: the kernel chooses
  int64_t body_bytes_max = 32 << 20;    // of a request; more gets 413
  std::string cert_file;                // both: TLS; neither: plain text
  std::string key_file;
};

class ExtProcServer {
 public:
  // Envoy accepts body pieces of at most 64 KiB.
  static constexpr size_t kPieceBytesMax = 62'000;

  // Borrows the picker.
  static Result<std::unique_ptr<ExtProcServer>> start(EndpointPicker& picker,
                                                      const ExtProcOptions& options);
  virtual ~ExtProcServer() = default;

  virtual int port() const = 0;
  // What the health service says for "", liveness, readiness and the processor's own name. Liveness
  // stays true.
  virtual void set_ready(bool ready) = 0;
  // Takes no new streams and lets those under way end until the deadline.
  virtual void stop(std::chrono::milliseconds grace) = 0;
};

}  // namespace wideep::epp
