// Two hosts on one machine, for tests: network namespaces and a cable between them that can be slow
// and can be cut. Needs the right to make namespaces (root); make() says when it is missing.
//
// The cable is two TAP devices and a thread that carries frames from one to the other.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "fabric/unique_fd.h"

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace wideep {

class Cable {
 public:
  // kUnavailable where namespaces or TAP devices are not permitted.
  static Result<std::unique_ptr<Cable>> make();
  ~Cable();

  // The address of host 0 or 1.
  static std::string address(int host);
  // Moves the calling process (a thread's worth of it) to a host.
  Status move_to(int host) const;

  // Of a host's network namespace; the cable keeps it.
  int network(int host) const { return hosts_[host].network.get(); }

  // Every frame takes this long from now on.
  void set_delay(Duration delay) { delay_ns_.store(delay.count()); }

  // Nothing gets through; what was on its way is lost. mend() undoes it.
  void cut() { is_cut_.store(true); }

  void mend() { is_cut_.store(false); }

  // Takes the network device of a host down, as `ip link set down` does.
  Status take_down(int host) const;

 private:
  struct Host {
    fabric::UniqueFd network;  // namespace
    fabric::UniqueFd device;   // TAP
  };

  struct Frame {
    TimePoint due;
    std::vector<char> bytes;
  };

  static Result<Host> make_host(int number);
  void carry();
  void receive(int from);
  void deliver(int from);

  Host hosts_[2];
  std::deque<Frame> on_the_way_[2];  // by the host they come from; the thread's
  std::atomic<int64_t> delay_ns_{0};
  std::atomic<bool> is_cut_{false};
  std::atomic<bool> is_stopping_{false};
  std::thread thread_;
};

}  // namespace wideep
