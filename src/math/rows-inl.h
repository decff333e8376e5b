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

// One of several groups of rows that meet the same block of weights.
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
// few of them in flight by itself, so each step of a kernel asks for lines that come later, a few
// between every few instructions (all at once they get in the way of the loads: measured, 4 rows of
// bf16 lost a third). Where one pass reads a block, these are the lines a fixed way ahead. Where
// several do, which find their weights in L1, each asks for its share of the next block, into L1:
// measured on Zen 5 with 8 rows of bf16, blocks of 16 KiB that reach L1 in time run at 0.95 of the
// read bandwidth, blocks of 32 KiB that reach L2 at 0.72. What lies behind the panel is the next
// panel; asking for a line that is not there does no harm.
constexpr int64_t kPrefetchBytes = 8192;
constexpr int64_t kCacheLine = 64;

inline void prefetch_for_write(const void* line) {
  __builtin_prefetch(line, 1);
}

inline void prefetch_l1(const std::byte* line) {
  __builtin_prefetch(line, 0, 3);
}

inline void prefetch_l2(const std::byte* line) {
  __builtin_prefetch(line, 0, 2);
}

// Asks for kLines lines in each step.
template <int kLines>
struct Prefetch {
  const std::byte* base = nullptr;

  // In step i, before part `part` of kParts.
  template <int kParts>
  void before(int64_t i, int part) const {
    const int first = kLines * part / kParts;
    const int count = kLines * (part + 1) / kParts - first;
    const std::byte* step = base + (i * kLines + first) * kCacheLine;
#pragma unroll
    for (int line = 0; line < (kLines + kParts - 1) / kParts; ++line) {
      if (line < count) prefetch_l1(step + line * kCacheLine);
    }
  }
};

// Calls f with the least Prefetch of kMost lines, a half of them, a sixth, …, that is enough.
template <int kMost, typename F>
[[gnu::always_inline]] inline void with_lines(int64_t lines, F&& f) {
  constexpr int kLess = kMost > 9 ? (kMost + 1) / 2 : (kMost + 2) / 3;
  if constexpr (kLess < kMost) {
    if (lines <= kLess) return with_lines<kLess>(lines, f);
  }
  f(Prefetch<kMost>());
}

// Weights that all passes read.
struct Block {
  const std::byte* packed;  // as they come from memory
  int64_t bytes;
  bool was_read = false;  // expanded to another place before: the next block is due
};

// Calls f(Prefetch) with what turn `turn` of kTurns over the columns of a block has to ask for,
// when it walks through the block in steps of kStepBytes.
template <int kStepBytes, int kTurns, typename F>
[[gnu::always_inline]] inline void with_prefetch(const Pass& pass,
                                                 int turn,
                                                 const Block& block,
                                                 F&& f) {
  constexpr int kStepLines = kStepBytes / kCacheLine;
  const int64_t passes = pass.count * kTurns;
  if (passes == 1 && !block.was_read) return f(Prefetch<kStepLines>{block.packed + kPrefetchBytes});
  constexpr int kMost = (kStepLines + kTurns - 1) / kTurns;
  with_lines<kMost>(
      (kStepLines + passes - 1) / passes,
      [&]<int kLines>(Prefetch<kLines> share) __attribute__((always_inline)) {
        const int64_t first_line = (pass.index * kTurns + turn) * kLines;  // of those of each step
        if (first_line >= kStepLines) return f(Prefetch<0>());
        share.base = block.packed + block.bytes + block.bytes / kStepLines * first_line;
        f(share);
      });
}

}  // namespace
}  // namespace wideep::math
