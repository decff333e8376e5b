// The connections between nodes. Rank s sends everything for a node over one connection, to the
// rank there that serves s (Shape::door); that rank's control thread writes it into the arenas of
// its node. So what one rank sends to one node stays in order, and N nodes need ranks x N
// connections instead of ranks x ranks.
#pragma once

#include "base/result.h"
#include "fabric/fabric.h"
#include "fabric/stream.h"
#include "fabric/tls.h"
#include "fabric/ucx.h"
#include "net/address.h"

#include <memory>
#include <optional>
#include <vector>

namespace wideep::fabric {

struct NodeLink {
  RankId door{};  // whom the connection leads to
  std::vector<RankId> ranks;
  std::unique_ptr<Stream> stream;       // we write
  std::unique_ptr<UcxEndpoint> direct;  // puts and signals go this way, if it is there
};

struct SourceLink {
  RankId source{};
  std::unique_ptr<Stream> stream;  // we read
};

struct NodeLinks {
  std::unique_ptr<UcxWorker> ucx;    // if puts and signals go by UCX; outlives the links
  std::vector<NodeLink> outgoing;    // one per other node
  std::vector<SourceLink> incoming;  // one per rank of other nodes that this rank serves
};

struct LinkOptions {
  uint64_t token = 0;                   // of the group
  std::vector<net::Address> addresses;  // [num_ranks], where each listens
  Duration timeout = std::chrono::seconds{30};
  TcpOptions tcp;
  std::optional<PresharedKey> key;  // encrypts; none: plain
  UcxWorker* ucx = nullptr;         // ranks introduce themselves to those who call
  int interrupt = -1;  // readable once waiting has become pointless (wait_limit.h); -1: none
};

// Connects to all other nodes and takes the calls of those that this rank serves. `listener`
// listens at addresses[rank].
Result<NodeLinks> link_nodes(const Shape& shape,
                             RankId rank,
                             int listener,
                             const LinkOptions& options);

}  // namespace wideep::fabric
