#include "base/topology.h"

#include <hwloc.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <memory>
#include <sstream>
#include <utility>

namespace wideep {
namespace {

using HwlocTopology = std::unique_ptr<hwloc_topology, void (*)(hwloc_topology_t)>;

// A partner on another core answers within this; a sleeping one takes as long to wake.
constexpr std::chrono::microseconds kSpinAlone{50};

// Part `index` of `count` even parts of [0, size).
std::pair<int, int> part_of(int size, int index, int count) {
  const auto edge = [&](int i) { return static_cast<int>(static_cast<int64_t>(size) * i / count); };
  return {edge(index), edge(index + 1)};
}

}  // namespace

Result<Topology> Topology::of_this_machine() {
  return read(nullptr);
}

Result<Topology> Topology::synthetic(const std::string& description) {
  return read(description.c_str());
}

Result<Topology> Topology::read(const char* synthetic_or_null) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return error(ErrorCode::kUnavailable, "hwloc cannot start");
  const HwlocTopology topology(raw, hwloc_topology_destroy);
  if (synthetic_or_null != nullptr) {
    if (hwloc_topology_set_synthetic(raw, synthetic_or_null) != 0) {
      return error(ErrorCode::kInvalidArgument, "'{}' does not describe a machine",
                   synthetic_or_null);
    }
  } else {
    hwloc_topology_set_flags(raw, HWLOC_TOPOLOGY_FLAG_RESTRICT_TO_CPUBINDING);
  }
  if (hwloc_topology_load(raw) != 0)
    return error(ErrorCode::kUnavailable, "hwloc cannot read the machine's topology");

  std::vector<Node> nodes;
  hwloc_obj_t numa = nullptr;
  while ((numa = hwloc_get_next_obj_by_type(raw, HWLOC_OBJ_NUMANODE, numa)) != nullptr) {
    Node node{.id = static_cast<int>(numa->os_index), .cpus = {}};
    hwloc_obj_t core = nullptr;
    while ((core = hwloc_get_next_obj_inside_cpuset_by_type(raw, numa->cpuset, HWLOC_OBJ_CORE,
                                                            core)) != nullptr) {
      node.cpus.push_back(hwloc_bitmap_first(core->cpuset));
    }
    // Memory without cores (CXL, HBM as a node of its own) computes nothing.
    if (!node.cpus.empty()) nodes.push_back(std::move(node));
  }
  if (nodes.empty()) return error(ErrorCode::kUnavailable, "hwloc finds no core to compute on");
  const hwloc_obj_t cache = hwloc_get_nbobjs_by_type(raw, HWLOC_OBJ_L3CACHE) == 1
                                ? hwloc_get_obj_by_type(raw, HWLOC_OBJ_L3CACHE, 0)
                                : nullptr;
  return Topology(std::move(nodes),
                  cache == nullptr ? 0 : static_cast<int64_t>(cache->attr->cache.size));
}

int Topology::num_cores() const {
  int count = 0;
  for (const Node& node : nodes_)
    count += static_cast<int>(node.cpus.size());
  return count;
}

Result<RankCpus> Topology::cpus_of_rank(int index, int num_ranks) const {
  if (index < 0 || index >= num_ranks) {
    return error(ErrorCode::kInvalidArgument, "there is no rank {} among the {} of this host",
                 index, num_ranks);
  }
  RankCpus rank;
  const int num_nodes = num_numa_nodes();
  if (num_ranks < num_nodes) {
    const auto [begin, end] = part_of(num_nodes, index, num_ranks);
    for (int n = begin; n < end; ++n) {
      const Node& node = nodes_[static_cast<size_t>(n)];
      rank.numa_nodes.push_back(node.id);
      rank.cpus.insert(rank.cpus.end(), node.cpus.begin(), node.cpus.end());
    }
    return rank;
  }
  // Ranks fill the nodes in order: node n has ranks [n * R / N, (n + 1) * R / N).
  int n = 0;
  while (part_of(num_ranks, n, num_nodes).second <= index)
    ++n;
  const auto [first, last] = part_of(num_ranks, n, num_nodes);
  const Node& node = nodes_[static_cast<size_t>(n)];
  const auto num_cores = static_cast<int>(node.cpus.size());
  const int ranks_here = last - first;
  rank.numa_nodes = {node.id};
  rank.shared = ranks_here > num_cores;
  if (rank.shared) {
    rank.cpus = {node.cpus[static_cast<size_t>((index - first) % num_cores)]};
    return rank;
  }
  const auto [begin, end] = part_of(num_cores, index - first, ranks_here);
  rank.cpus.assign(node.cpus.begin() + begin, node.cpus.begin() + end);
  return rank;
}

std::optional<int> parse_cpu_max(const std::string& text) {
  std::istringstream words(text);
  int64_t quota = 0;
  int64_t period = 0;
  if (!(words >> quota >> period) || quota <= 0 || period <= 0) return std::nullopt;
  return static_cast<int>(std::clamp<int64_t>(quota / period, 1, INT32_MAX));
}

std::optional<int> cpu_quota() {
  const auto line_of = [](const char* path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
  };
  if (const auto quota = parse_cpu_max(line_of("/sys/fs/cgroup/cpu.max"))) return quota;
  // Version 1 has two files.
  return parse_cpu_max(line_of("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") + " " +
                       line_of("/sys/fs/cgroup/cpu/cpu.cfs_period_us"));
}

ThreadPoolOptions pinned_pool(const RankCpus& rank, int num_threads) {
  const auto num_cpus = static_cast<int>(rank.cpus.size());
  ThreadPoolOptions options;
  options.num_threads = num_threads > 0 ? num_threads : num_cpus;
  for (int thread = 0; thread < options.num_threads; ++thread)
    options.cpus.push_back(rank.cpus[static_cast<size_t>(thread % num_cpus)]);
  const bool crowded = rank.shared || options.num_threads > num_cpus;
  options.spin = crowded ? std::chrono::microseconds(0) : kSpinAlone;
  return options;
}

}  // namespace wideep
