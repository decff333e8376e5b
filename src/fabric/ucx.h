// Puts into the arenas of another node by UCX, for InfiniBand and RoCE: rows and signals are
// written by the network adapter straight to their place, no thread of the receiver takes part.
//
// A rank has one UcxWorker and, for each other node, one UcxEndpoint to its door there. The door
// has registered the arenas of all ranks of its node, so that everything one rank sends to one node
// goes one way and in order: rows, then (fence) the words of a signal, then (fence) its sequence
// number. A message without payload follows, the bell: whoever sleeps there sees no RDMA write.
//
// That a peer is gone is not UCX's to tell (it notices a cut link after minutes, and dead
// shared-memory peers never): the TCP link that introduced the two stays open for beats, words of
// farewell and its end. UCX neither encrypts nor authenticates; join() asks for `insecure` beyond
// this host.
//
// Where UCX has no RDMA (its own tcp, posix and sysv transports, on which the tests run) it
// emulates puts, and the receiver must make progress: its control thread does, woken by event_fd().
// UCX 1.13 over its own tcp ends the process when a peer dies at the wrong moment (a fatal error in
// its emulation): good for tests of what the calls do, not for service. Untested on RDMA hardware.
//
// Thread: any; the worker has a lock.
#pragma once

#include "base/clock.h"
#include "fabric/arena.h"
#include "fabric/fabric.h"
#include "fabric/handover.h"
#include "fabric/ucx_introduction.h"

#include <atomic>
#include <memory>
#include <string>
#include <vector>

namespace wideep::fabric {

struct UcxOptions {
  std::string transports;  // UCX's names, "rc,dc" or "tcp"; empty: what UCX likes best
  std::string devices;     // "mlx5_0:1" or "eth0"; empty: all
};

class UcxEndpoint;

class UcxWorker {
  struct Checked {};  // what only create() can hand in

 public:
  // Registers the arenas of this node's ranks, which must outlive it.
  static Result<std::unique_ptr<UcxWorker>> create(const Shape& shape,
                                                   RankId rank,
                                                   LocalPeers& local,
                                                   const UcxOptions& options);
  explicit UcxWorker(Checked /*checked*/);
  ~UcxWorker();
  UcxWorker(const UcxWorker&) = delete;
  UcxWorker& operator=(const UcxWorker&) = delete;

  const UcxIntroduction& introduction() const;
  // An endpoint to whoever introduced himself so. It must not outlive the worker.
  Result<std::unique_ptr<UcxEndpoint>> connect(const UcxIntroduction& introduction);

  // Becomes readable when progress() has something to do.
  int event_fd() const;
  // Does what there is to do and arms event_fd(). False: there is more, or what waits for a dead
  // peer's memory keeps it busy; call it again soon.
  bool progress();
  // The same while somebody spins: does nothing if another thread is at it.
  void try_progress();

 private:
  friend class UcxEndpoint;
  struct State;  // what UCX calls it

  std::unique_ptr<State> state_;
};

class UcxEndpoint {
 public:
  struct State;
  explicit UcxEndpoint(std::unique_ptr<State> state);
  // What has not left yet is dropped.
  ~UcxEndpoint();

  // As Fabric::put and Fabric::signal. kTimeout when the other side takes nothing until `deadline`;
  // the endpoint is closed then, so that nothing is read from `bytes` any more. After that, as
  // after fail(), all vanishes.
  Status put(RankId to, int64_t offset, std::span<const std::byte> bytes, TimePoint deadline);
  Status signal(RankId to, ChannelId channel, const Signal& signal, TimePoint deadline);
  // Until everything put and signalled is in the other node's memory.
  Status flush(TimePoint deadline);
  // The peer is gone: nothing is waited for any more. Any thread.
  void fail();

  // Payloads of puts and signals; UCX's own headers are not known here.
  WireCounters counters() const;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace wideep::fabric
