#include "calibration.h"

#include "peaks.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>

namespace wideep::bench {
namespace {

constexpr int64_t kChunk = 1 << 20;
constexpr int64_t kWindow = int64_t{512} << 20;  // bytes read by one run

// Sums all of a window of the memory, another one at each run.
void add_read(std::vector<Case>& cases,
              const std::string& name,
              ThreadPool* pool,
              void (*read)(std::span<const std::byte>),
              std::span<const std::byte> memory) {
  const auto size = static_cast<int64_t>(memory.size());
  const int64_t chunks = std::min(size, kWindow) / kChunk;
  const auto base = std::make_shared<int64_t>(0);
  cases.push_back(
      {.name = name, .work = static_cast<double>(chunks * kChunk), .unit = "GB/s", .run = [=] {
         *base = (*base + chunks) % (size / kChunk - chunks + 1);
         const auto body = [&](int64_t chunk, int) {
           read(memory.subspan(static_cast<size_t>((*base + chunk) * kChunk),
                               static_cast<size_t>(kChunk)));
         };
         if (pool != nullptr) {
           pool->for_each(chunks, body);
           return;
         }
         for (int64_t chunk = 0; chunk < chunks; ++chunk)
           body(chunk, 0);
       }});
}

void add_peak(std::vector<Case>& cases,
              const std::string& name,
              ThreadPool& pool,
              double (*burst)()) {
  constexpr int kBursts = 16;
  const double work = burst();
  cases.push_back({.name = name + " 1 thread",
                   .work = work,
                   .unit = "GOPS",
                   .least_seconds = 0.02,
                   .run = [burst] { burst(); }});
  cases.push_back({.name = name,
                   .work = work * kBursts * pool.num_threads(),
                   .unit = "GOPS",
                   .least_seconds = 0.02,
                   .run = [&pool, burst] {
                     pool.run([&](int) {
                       for (int i = 0; i < kBursts; ++i)
                         burst();
                     });
                   }});
}

}  // namespace

void add_calibration(std::vector<Case>& cases,
                     math::Isa isa,
                     ThreadPool& pool,
                     std::span<const std::byte> memory) {
  const Peaks all = peaks(isa);
  add_read(cases, "read 1 thread", nullptr, all.read, memory);
  add_read(cases, "read", &pool, all.read, memory);
  add_peak(cases, "bf16 peak", pool, all.bf16);
  add_peak(cases, "int8 peak", pool, all.int8);
}

}  // namespace wideep::bench
