// How a kernel walks over many rows: in groups that fit its registers. Everything in an -inl.h lies
// in an unnamed namespace and calls no function of the standard library, so that nothing compiled
// for a wide ISA can be linked into code that must run everywhere.
#pragma once

#include <cstddef>
#include <cstdint>

namespace wideep::math {
namespace {

inline int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

// Calls f.template operator()<count>() for a count in [1, kMax].
template <int kMax, typename F>
inline void with_count(int64_t count, F&& f) {
  if constexpr (kMax > 1) {
    if (count < kMax) {
      with_count<kMax - 1>(count, f);
      return;
    }
  }
  f.template operator()<kMax>();
}

// One of several passes over the same block of weights.
struct Pass {
  int64_t first_row;
  int64_t index;
  int64_t count;
};

// Calls f.template operator()<rows>(pass) for groups of at most kMax rows, as even as can be: 7
// rows are 4 + 3, which reads the weights as often as 6 + 1 and keeps more registers busy.
template <int kMax, typename F>
inline void for_row_groups(int64_t num_rows, F&& f) {
  const int64_t groups = (num_rows + kMax - 1) / kMax;
  Pass pass{.first_row = 0, .index = 0, .count = groups};
  for (; pass.index < groups; ++pass.index) {
    const int64_t rows = num_rows / groups + (pass.index < num_rows % groups ? 1 : 0);
    with_count<kMax>(rows, [&]<int kRows>() { f.template operator()<kRows>(pass); });
    pass.first_row += rows;
  }
}

// Weights are read from memory once, in order. A core that multiplies between its loads keeps too
// few of them in flight by itself, so each step of a kernel asks for lines that come later: with
// one pass over a block, the lines a fixed way ahead, a part of them between every few instructions
// (all at once they get in the way of the loads: measured, 4 rows of bf16 lost a third); with
// several passes, which find their weights in L1, each its share of the next block, into L2. What
// lies behind the panel is the next panel; asking for a line that is not there does no harm.
constexpr int64_t kPrefetchBytes = 2048;
constexpr int64_t kCacheLine = 64;

inline void prefetch_l1(const std::byte* line) {
  __builtin_prefetch(line, 0, 3);
}

inline void prefetch_l2(const std::byte* line) {
  __builtin_prefetch(line, 0, 2);
}

struct Prefetch {
  const std::byte* base = nullptr;
  int64_t step_bytes = 0;  // asked for by each step
  bool one_pass = false;

  // In step i of a pass, before part `part` of kParts.
  template <int kParts>
  void before(int64_t i, int part) const {
    const std::byte* step = base + i * step_bytes;
    if (one_pass) {
      const int64_t end = step_bytes * (part + 1) / kParts;
      for (int64_t offset = step_bytes * part / kParts; offset < end; offset += kCacheLine)
        prefetch_l1(step + offset);
    } else if (part == 0) {
      for (int64_t offset = 0; offset < step_bytes; offset += kCacheLine)
        prefetch_l2(step + offset);
    }
  }
};

// A pass's share of the block behind this one.
inline Prefetch prefetch_next(const Pass& pass,
                              const std::byte* block,
                              int64_t block_bytes,
                              int64_t step_bytes) {
  const int64_t lines = (step_bytes / kCacheLine + pass.count - 1) / pass.count;
  const int64_t steps = block_bytes / step_bytes;
  const int64_t offset = pass.index * steps * lines * kCacheLine;
  if (offset >= block_bytes) return {};
  return {.base = block + block_bytes + offset, .step_bytes = lines * kCacheLine};
}

// For a pass that reads `block_bytes` of weights from `block` in steps of `step_bytes`.
inline Prefetch prefetch_for(const Pass& pass,
                             const std::byte* block,
                             int64_t block_bytes,
                             int64_t step_bytes) {
  if (pass.count > 1) return prefetch_next(pass, block, block_bytes, step_bytes);
  return {.base = block + kPrefetchBytes, .step_bytes = step_bytes, .one_pass = true};
}

}  // namespace
}  // namespace wideep::math
