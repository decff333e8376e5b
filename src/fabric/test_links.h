// Listeners for a whole group on this host, for tests: ports chosen by the kernel, known to all.
#pragma once

#include "fabric/node_links.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace wideep::fabric {

struct TestListeners {
  std::vector<UniqueFd> sockets;        // [rank]
  std::vector<net::Address> addresses;  // [rank]

  explicit TestListeners(int32_t num_ranks) {
    for (int32_t r = 0; r < num_ranks; ++r) {
      auto socket = listen_at({.host = "127.0.0.1"});
      EXPECT_TRUE(socket.has_value());
      addresses.push_back(*local_address(socket->get(), {.host = "127.0.0.1"}));
      sockets.push_back(*std::move(socket));
    }
  }

  Result<NodeLinks> link(const Shape& shape, RankId rank, uint64_t token) const {
    return link_nodes(shape, rank, sockets[subscript(rank)].get(),
                      {.token = token, .addresses = addresses});
  }
};

}  // namespace wideep::fabric
