// Everything a rank needs to take part: it joins the others and gets its exchange. The one place
// where fabric and exchange are put together.
#pragma once

#include "ep/fabric_all_to_all.h"
#include "ep/placement.h"
#include "fabric/join.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace wideep::ep {

struct GroupOptions {
  fabric::JoinOptions join;  // num_channels is set here; rules are completed with the exchange's
  ExchangeOptions exchange;
};

// One rank's part in one epoch. Owns fabric, placement and exchange; borrows kernels and pool.
class Group {
  struct Checked {};  // what only join() can hand in

 public:
  // Blocks until all ranks are there. See fabric::join for what fails.
  static Result<std::unique_ptr<Group>> join(const GroupOptions& options,
                                             Placement placement,
                                             const math::Kernels& kernels,
                                             ThreadPool& pool);

  Group(Checked /*checked*/, Placement placement) : placement_(std::move(placement)) {}

  // kPeerLost if a rank of the group is gone, named with the reason: for ranks that are busy with
  // something else than steps, such as loading their experts. Any thread.
  Status check_peers() const;
  // Tells the others that this rank is ready to step and blocks until all of them are; says in the
  // log whom it still waits for. kPeerLost, kTimeout. Before the first step, on all ranks.
  Status await_ready(Duration timeout);
  // Tells the others that this rank has no requests any more and will get none, and blocks until
  // all of them say so: whoever leaves before takes its experts away from their requests.
  // kPeerLost, kTimeout. While the engine thread steps.
  Status await_done(Duration timeout);

  fabric::Fabric& fabric() { return *fabric_; }

  const fabric::Fabric& fabric() const { return *fabric_; }

  FabricAllToAll& exchange() { return *exchange_; }

  const FabricAllToAll& exchange() const { return *exchange_; }

  const Placement& placement() const { return placement_; }

 private:
  enum class Stage : uint64_t { kReady = 1, kDone };

  Status await_all(Stage stage, std::string_view who, Duration timeout);

  const Placement placement_;
  std::unique_ptr<fabric::GroupFabric> fabric_;
  std::unique_ptr<FabricAllToAll> exchange_;
};

// What must agree between ranks, readable: "hidden 2048, top_k 8, dispatch bf16, ...".
std::string describe(const ExchangeOptions& options, const Placement& placement);

}  // namespace wideep::ep
