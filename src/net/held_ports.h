// Ports of this host that stay ours from the start of a deployment to its end, though the processes
// that listen on them come and go.
//
// Each is a socket that is bound and never listens: the kernel gives its port to nobody who asks
// for any port, and lets a process that names it listen there. Thread: one.
#pragma once

#include "base/result.h"
#include "net/address.h"

#include <cstdint>
#include <string>
#include <vector>

namespace wideep::net {

class HeldPorts {
 public:
  HeldPorts() = default;
  ~HeldPorts();
  HeldPorts(const HeldPorts&) = delete;
  HeldPorts& operator=(const HeldPorts&) = delete;

  // `port` 0: one that is free. kUnavailable if somebody listens there, or `host` is no address of
  // this host.
  Result<Address> hold(const std::string& host, uint16_t port = 0);

 private:
  std::vector<int> descriptors_;
};

}  // namespace wideep::net
