// One rank of a group that runs the tests' scenario, as a process of a deployment does it: it meets
// the others at the leader and exchanges.
#pragma once

#include "ep/group.h"
#include "ep/test_group.h"
#include "fabric/stream.h"

#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace wideep::ep {

inline SimGroup group_of(int32_t num_ranks) {
  const Scenario scenario{
      .seed = 21,
      .num_ranks = num_ranks,
      .num_experts = 10,
      .top_k = 4,
      .hidden = 256,
      .num_layers = 3,
      .num_steps = 30,
      .tokens_max = 16,
      .formats = {math::RowFormat::kBf16, math::RowFormat::kBf16, math::RowFormat::kBf16}};
  return sim_group(scenario, std::vector<int>(static_cast<size_t>(num_ranks)));
}

inline Status compare(const std::vector<float>& rows, const std::vector<float>& expected) {
  if (same_bits(rows, expected)) return {};
  return error(ErrorCode::kDataLoss, "other bits than the judge's");
}

// This rank's part of the scenario; an error unless it comes to the judge's bits.
inline Status play_and_compare(const SimGroup& group, Group& joined, const Rows& expected) {
  const RankId rank = joined.fabric().rank();
  WD_ASSIGN_OR_RETURN(const std::vector<float> rows,
                      run_scenario(group.scenario, joined.exchange(), joined.placement(), rank));
  return compare(rows, expected[subscript(rank)]);
}

struct Part {
  net::Address leader;
  std::string host = "127.0.0.1";
  bool in_cipher = false;
  Duration liveness = std::chrono::seconds{3};
  fabric::NodeTransport transport = fabric::NodeTransport::kTcp;
  fabric::UcxOptions ucx;
  bool real_nodes = false;  // nodes are what the ranks find out, not what the group says
};

inline Status take_part(const SimGroup& group,
                        int32_t rank,
                        const Part& part,
                        const std::function<Status(Group&)>& body) {
  GroupOptions options{.exchange = group.options};
  options.join = {.rank = RankId{rank},
                  .num_ranks = group.scenario.num_ranks,
                  .leader = part.leader,
                  .host = part.host,
                  .transport = part.transport,
                  .ucx = part.ucx};
  if (!part.real_nodes) options.join.node_id = group.nodes[static_cast<size_t>(rank)];
  options.join.insecure = !part.in_cipher;
  if (part.in_cipher) options.join.key = *fabric::PresharedKey::from_secret("of this test");
  options.join.fabric.liveness_deadline = part.liveness;
  options.join.fabric.wait = fabric::WaitPolicy::for_node(group.scenario.num_ranks, 2);
  ThreadPool pool({.num_threads = 1});
  WD_ASSIGN_OR_RETURN(auto joined,
                      Group::join(options, group.placement, math::reference_kernels(), pool));
  return body(*joined);
}

}  // namespace wideep::ep
