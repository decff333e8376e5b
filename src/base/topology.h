// Which CPUs the threads of a rank run on. The ranks of a host share its cores evenly, each on as
// few NUMA nodes as possible: a rank that computes on one node and allocates there (memory lands
// where it is first touched) reads its weights at that node's bandwidth.
//
// Owns a copy of the machine's description; knows nothing of threads. Thread: all const.
#pragma once

#include "base/result.h"
#include "base/thread_pool.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace wideep {

// Where one of the ranks of a host computes.
struct RankCpus {
  std::vector<int> cpus;        // one hardware thread per core, ascending by core; never empty
  std::vector<int> numa_nodes;  // that these belong to
  bool shared = false;          // some of them serve other ranks too
};

class Topology {
 public:
  // This machine, as far as this process may use it (control group and affinity). kUnavailable if
  // it cannot be read.
  static Result<Topology> of_this_machine();
  // A machine described in hwloc's synthetic notation, for tests: "numa:2 core:4 pu:2".
  static Result<Topology> synthetic(const std::string& description);

  int num_cores() const;

  int num_numa_nodes() const { return static_cast<int>(nodes_.size()); }

  // Of the last-level cache, where all cores share one; else 0.
  int64_t shared_cache_bytes() const { return shared_cache_bytes_; }

  // The cores of rank `index` of `num_ranks` on this host. With at least as many ranks as NUMA
  // nodes a rank stays on one; with more ranks than cores they take turns on them.
  // kInvalidArgument if index is not in [0, num_ranks).
  Result<RankCpus> cpus_of_rank(int index, int num_ranks) const;

 private:
  struct Node {
    int id = 0;             // as the operating system counts
    std::vector<int> cpus;  // first hardware thread of every core
  };

  Topology(std::vector<Node> nodes, int64_t shared_cache_bytes)
      : nodes_(std::move(nodes)), shared_cache_bytes_(shared_cache_bytes) {}

  static Result<Topology> read(const char* synthetic_or_null);

  std::vector<Node> nodes_;  // those with cores
  int64_t shared_cache_bytes_;
};

// How many cores' worth of time this process' control group lets it have, at least 1: the CPU limit
// of a container. Nothing if there is none. More threads than that are stopped for the rest of a
// period, together with whoever waits for them.
std::optional<int> cpu_quota();
// From the text of cpu.max: "QUOTA PERIOD" in microseconds, or "max PERIOD".
std::optional<int> parse_cpu_max(const std::string& text);

// A pool of `num_threads` (0: one per core of the rank) pinned to these cores. Threads that share
// their core with others do not spin: whoever spins keeps the one it waits for from running.
ThreadPoolOptions pinned_pool(const RankCpus& rank, int num_threads);

}  // namespace wideep
