// Dispatch + combine of one MoE layer over shared memory, ranks as threads, against the memcpy
// floor of the same bytes on one thread. Experts copy each row to its result: what is measured is
// the exchange. One JSON line per shape: {"what", "ranks", "tokens", "hidden", "top_k", "us_p50",
// ...}. Uniform routing. With more ranks than cores the numbers are the scheduler's.
//
//   ep_bench [--rounds N]
#include "base/random.h"
#include "base/thread_pool.h"
#include "ep/fabric_all_to_all.h"
#include "fabric/group_fabric.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>
#include <vector>

namespace wideep::ep {
namespace {

struct Shape {
  int32_t ranks = 2;
  int64_t tokens = 8;
  int64_t hidden = 2048;
  int64_t top_k = 8;
  int32_t experts = 64;
};

double microseconds(Duration duration) {
  return static_cast<double>(duration.count()) / 1000.0;
}

Status run_rank(const Shape& s, fabric::Fabric& fabric, int rounds, std::vector<double>& times) {
  ThreadPool pool({.num_threads = 1});
  const Placement placement = Placement::linear(1, s.experts, s.ranks);
  const ExchangeOptions options{
      .shape = {.hidden = s.hidden, .top_k = s.top_k, .tokens_max = s.tokens},
      .low_latency_tokens_max = s.tokens};
  WD_ASSIGN_OR_RETURN(
      auto exchange,
      FabricAllToAll::create(fabric, placement, math::kernels(math::detect_isa()), pool, options));
  Random random(static_cast<uint64_t>(index(fabric.rank())));
  Matrix<float> x(s.tokens, s.hidden);
  std::vector<ExpertId> experts;
  for (int64_t i = 0; i < s.tokens * s.top_k; ++i)
    experts.push_back(
        ExpertId{static_cast<int32_t>(random.below(static_cast<uint64_t>(s.experts)))});
  const std::vector<float> weights(experts.size(), 0.0F);
  const auto row = static_cast<size_t>(math::row_bytes(math::RowFormat::kBf16, s.hidden));
  for (int round = 0; round < rounds; ++round) {
    WD_TRY(exchange->begin_step({.num_tokens = s.tokens, .has_work = true}));
    const TimePoint start = real_clock().now();
    WD_TRY(exchange->start_dispatch(LayerId{0}, x.view(), {s.tokens, s.top_k, experts, weights}));
    for (;;) {
      WD_ASSIGN_OR_RETURN(const ExpertBatch batch, exchange->next_experts());
      if (batch.experts.empty()) break;
      for (const ExpertRows& rows : batch.experts)
        for (size_t i = 0; i < rows.in.size(); ++i)
          std::memcpy(rows.out[i], rows.in[i], row);
      WD_TRY(exchange->finish(batch));
    }
    WD_TRY(exchange->combine({}, x.view()));
    times.push_back(microseconds(real_clock().now() - start));
  }
  return {};
}

// What has to be moved by a rank at least: each (token, k) row once to its result.
double floor_us(const Shape& s, int rounds) {
  const auto bytes = static_cast<size_t>(s.tokens * s.top_k) *
                     static_cast<size_t>(math::row_bytes(math::RowFormat::kBf16, s.hidden));
  AlignedBuffer from(bytes);
  AlignedBuffer to(bytes);
  from.prefault();
  to.prefault();
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    const TimePoint start = real_clock().now();
    std::memcpy(to.data(), from.data(), bytes);
    times.push_back(microseconds(real_clock().now() - start));
  }
  std::ranges::sort(times);
  return times[times.size() / 2];
}

Status run_shape(const Shape& s, int rounds) {
  fabric::Shape group{.node_of = std::vector<NodeId>(static_cast<size_t>(s.ranks)),
                      .num_channels = kNumChannels};
  group.arena_bytes =
      ExchangeLayout({.hidden = s.hidden, .top_k = s.top_k, .tokens_max = s.tokens}, group.node_of)
          .arena_bytes();
  WD_ASSIGN_OR_RETURN(auto local, fabric::hand_over_in_process(group));
  std::vector<std::vector<double>> times(static_cast<size_t>(s.ranks));
  std::vector<Status> status(times.size());
  std::vector<std::thread> threads;
  const auto cores = static_cast<int32_t>(std::thread::hardware_concurrency());
  for (size_t r = 0; r < times.size(); ++r) {
    threads.emplace_back([&, r] {
      auto fabric =
          fabric::GroupFabric::create(group, RankId{static_cast<int32_t>(r)}, std::move(local[r]),
                                      {}, {.wait = fabric::WaitPolicy::for_node(s.ranks, cores)});
      status[r] =
          fabric ? run_rank(s, **fabric, rounds, times[r]) : std::unexpected(fabric.error());
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  for (const Status& one : status)
    WD_TRY(one);
  std::vector<double> slowest;  // of all ranks, per round
  for (size_t round = static_cast<size_t>(rounds) / 5; round < static_cast<size_t>(rounds);
       ++round) {
    double most = 0;
    for (const auto& rank : times)
      most = std::max(most, rank[round]);
    slowest.push_back(most);
  }
  std::ranges::sort(slowest);
  fmt::print(
      R"({{"what": "dispatch+combine shm", "ranks": {}, "cores": {}, "tokens": {}, "hidden": {}, )"
      R"("top_k": {}, "us_p50": {:.1f}, "us_p99": {:.1f}, "memcpy_us_p50": {:.1f}}})"
      "\n",
      s.ranks, cores, s.tokens, s.hidden, s.top_k, slowest[slowest.size() / 2],
      slowest[slowest.size() * 99 / 100], floor_us(s, rounds));
  return {};
}

}  // namespace
}  // namespace wideep::ep

int main(int argc, char** argv) {
  int rounds = 200;
  for (int i = 1; i + 1 < argc; ++i)
    if (std::string_view(argv[i]) == "--rounds") rounds = std::max(5, std::atoi(argv[i + 1]));
  for (const int32_t ranks : {1, 2, 4}) {
    for (const int64_t tokens : {1, 8, 128}) {
      for (const int64_t hidden : {2048, 7168}) {
        const auto status =
            wideep::ep::run_shape({.ranks = ranks, .tokens = tokens, .hidden = hidden}, rounds);
        if (!status) {
          fmt::print(stderr, "{}\n", status.error().message);
          return 1;
        }
      }
    }
  }
  return 0;
}
