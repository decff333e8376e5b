// Integer products: rows kInt8 x weights kInt8, kInt4. Included by the AVX2 and AVX-512 levels,
// which define before it Vec (see gemm_fma-inl.h) and
//
//   struct IntVec { load, store: of sums that wait where f32 will be; to_f32;
//                   kRowsMax, kInt4RowsMax: rows of one group; kOnePassRows: rows that keep sums of
//                   all columns in registers; kInt4Vecs: vectors of columns at a time;
//                   load_weights -> Weights, kWeightRegisters of them; load_quad -> Quad, from
//                   kQuadBytes: four i8 of a row as they are, or what prepare_quad made of them;
//                   dot(sums, Weights, Quad) adds the products of four u8 with four i8
//                   int4: load_nibbles -> Nibbles; broadcast(four i8 of a row); start_group,
//                   dot_nibbles, end_group -> i32, of the 32 inputs of a group }
//
// The i32 sums are exact, so that every level and AMX agree on them; then come, in this order,
// int8: f32(sum) * column scale * row scale; int4: fma(f32(group sum), group scale, total) over
// ascending groups, then * row scale. Weight codes are unsigned (code + 128, code + 8): the excess,
// 128 or 8 x the sum of the row's codes, is where the sums start.
#pragma once

#include "math/packed_layout.h"
#include "math/panel_product.h"
#include "math/rows-inl.h"

namespace wideep::math {
namespace {

constexpr int kIntVecs = 64 / Vec::kLanes;

inline float row_scale(const PanelProduct& p, int64_t r) {
  return *reinterpret_cast<const float*>(p.rows[r] + p.kp);
}

inline int32_t row_sum(const PanelProduct& p, int64_t r) {
  return *reinterpret_cast<const int32_t*>(p.rows[r] + p.kp + 4);
}

constexpr bool kWideQuads = IntVec::kQuadBytes > 4;

// Of a row's quads.
inline int64_t wide_bytes(const PanelProduct& p) {
  return p.kp / 4 * IntVec::kQuadBytes;
}

// Quads where they are not simply the row: [rows][kp/4].
template <typename V = IntVec>
inline void prepare_int8(const PanelProduct& p, std::byte* prepared) {
  if constexpr (kWideQuads) {
    for (int64_t r = 0; r < p.num_rows; ++r) {
      for (int64_t k = 0; k < p.kp; k += 4, prepared += V::kQuadBytes)
        V::prepare_quad(p.rows[r] + k, prepared);
    }
  }
}

// out = f32(sums) * column scales * row scale.
inline void store_scaled(float* out, Vec::Int sums, const float* scales, float row_scale) {
  const Vec::F scaled = Vec::mul(IntVec::to_f32(sums), Vec::load(scales));
  Vec::store(out, Vec::mul(scaled, Vec::set(row_scale)));
}

// Inputs [begin, end), whole steps.
struct Inputs {
  int64_t begin;
  int64_t end;
};

// x: the rows' quads.
template <int kRows, int kCount, int kAhead>
[[gnu::always_inline]] inline void int8_quads(const std::byte* const (&x)[kRows],
                                              const std::byte* w,
                                              Inputs inputs,
                                              const Prefetch<kAhead>& prefetch,
                                              Vec::Int (&sums)[kRows][kCount]) {
  for (int64_t k = inputs.begin; k < inputs.end; k += 4) {
    IntVec::Weights weights[kCount];
#pragma unroll
    for (int v = 0; v < kCount; ++v)
      weights[v] = IntVec::load_weights(w + k * kPanelCols + v * Vec::kLanes * 4);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      prefetch.template before<kRows>((k - inputs.begin) / 4, r);
      const IntVec::Quad quad = IntVec::load_quad(x[r] + k / 4 * IntVec::kQuadBytes);
#pragma unroll
      for (int v = 0; v < kCount; ++v)
        sums[r][v] = IntVec::dot(sums[r][v], weights[v], quad);
    }
  }
}

// kRows rows x kCount vectors; sums of a block wait in `out` as i32.
template <int kRows, int kCount>
inline void int8_block(const PanelProduct& p, const Pass& pass, int first, Inputs inputs) {
  const int64_t row = pass.first_row;
  const auto [begin, end] = inputs;
  const std::byte* x[kRows];
  Vec::Int sums[kRows][kCount];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    x[r] = kWideQuads ? p.prepared + (row + r) * wide_bytes(p) : p.rows[row + r];
    const float* out = p.out + (row + r) * kPanelCols;
#pragma unroll
    for (int v = 0; v < kCount; ++v) {
      sums[r][v] = begin == 0 ? Vec::set_int(-128 * row_sum(p, row + r))
                              : IntVec::load(out + (first + v) * Vec::kLanes);
    }
  }
  with_prefetch<4 * kPanelCols, kIntVecs / kCount>(
      pass, first / kCount,
      {.packed = p.panel + begin * kPanelCols, .bytes = (end - begin) * kPanelCols},
      [&](const auto& prefetch) __attribute__((always_inline)) {
        int8_quads<kRows, kCount>(x, p.panel + first * Vec::kLanes * 4, inputs, prefetch, sums);
      });
  const auto* scales = reinterpret_cast<const float*>(p.scales) + first * Vec::kLanes;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float* out = p.out + (row + r) * kPanelCols + first * Vec::kLanes;
#pragma unroll
    for (int v = 0; v < kCount; ++v) {
      if (end < p.kp) {
        IntVec::store(out + v * Vec::kLanes, sums[r][v]);
      } else {
        store_scaled(out + v * Vec::kLanes, sums[r][v], scales + v * Vec::kLanes,
                     row_scale(p, row + r));
      }
    }
  }
}

template <int kRows>
constexpr int int_vectors() {
  int count = kIntVecs;
  while (count > 1 && kRows * count + count * IntVec::kWeightRegisters + 3 > Vec::kRegisters)
    count /= 2;
  return count;
}

inline void multiply_int8(const PanelProduct& p) {
  constexpr int64_t kInL1 = Vec::kBlockBytes / kPanelCols;
  const int64_t step = p.num_rows <= IntVec::kOnePassRows ? p.kp : kInL1;
  for (int64_t begin = 0; begin < p.kp; begin += step) {
    const int64_t end = least(begin + step, p.kp);
    for_row_groups<IntVec::kRowsMax>(p.num_rows, [&]<int kRows>(const Pass& pass) {
      constexpr int kCount = int_vectors<kRows>();
      for (int first = 0; first < kIntVecs; first += kCount)
        int8_block<kRows, kCount>(p, pass, first, {begin, end});
    });
  }
}

// Where the sums of each group of 32 start, -8 x the sum of the row's codes, in front of all
// panels: i32 [kp/32][rows].
inline void prepare_int4(const PanelProduct& p, std::byte* prepared) {
  auto* starts = reinterpret_cast<int32_t*>(prepared);
  for (int64_t r = 0; r < p.num_rows; ++r) {
    const auto* codes = reinterpret_cast<const int8_t*>(p.rows[r]);
    for (int64_t g = 0; g < p.kp / kInt4Group; ++g) {
      int32_t sum = 0;
      for (int64_t i = 0; i < kInt4Group; ++i)
        sum += codes[g * kInt4Group + i];
      starts[g * p.num_rows + r] = -8 * sum;
    }
  }
}

// The group of 32 inputs from k on: kRows rows x kInt4Vecs vectors of columns, added to `totals`.
// A quad of a row, which costs a load, meets all of these columns; nibbles unpacked meet all rows.
// `ask(part)` in front of each of 4 * kRows parts asks for lines that come later.
template <int kRows, typename Ask>
[[gnu::always_inline]] inline void int4_group(const std::byte* const (&x)[kRows],
                                              int64_t k,
                                              const int32_t* starts,
                                              const std::byte* group,
                                              int column,
                                              const Ask& ask,
                                              float* totals) {
  constexpr int kColumns = IntVec::kInt4Vecs;
  Vec::Int sums[kRows][kColumns];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int v = 0; v < kColumns; ++v)
      sums[r][v] = IntVec::start_group(starts[r]);
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    IntVec::Nibbles low[kColumns];
    IntVec::Nibbles high[kColumns];
#pragma unroll
    for (int v = 0; v < kColumns; ++v) {
      const int first = column + v * Vec::kLanes;
      IntVec::load_nibbles(group + (j * kPanelCols + first) * 4, low[v], high[v]);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      ask(j * kRows + r);
      const auto quad_low = IntVec::broadcast(x[r] + k + 8 * j);
      const auto quad_high = IntVec::broadcast(x[r] + k + 8 * j + 4);
#pragma unroll
      for (int v = 0; v < kColumns; ++v)
        sums[r][v] = IntVec::dot_nibbles(sums[r][v], low[v], quad_low);
#pragma unroll
      for (int v = 0; v < kColumns; ++v)
        sums[r][v] = IntVec::dot_nibbles(sums[r][v], high[v], quad_high);
      // Here and not later: left to itself the compiler puts products off, keeps what they need on
      // the stack, and eight rows take half as long again.
#pragma unroll
      for (int v = 0; v < kColumns; ++v)
        asm volatile("" : "+v"(sums[r][v]));
    }
  }
#pragma unroll
  for (int v = 0; v < kColumns; ++v) {
    const int first = column + v * Vec::kLanes;
    const auto* scales = reinterpret_cast<const uint16_t*>(group + kInt4GroupCodes);
    const Vec::F scale = Vec::load_bf16(scales + first);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float* total = totals + r * kPanelCols + first;
      const Vec::Int sum = IntVec::end_group(sums[r][v], starts[r]);
      Vec::store(total, Vec::fma(IntVec::to_f32(sum), scale, Vec::load(total)));
    }
  }
}

// kRows rows x all columns; totals are kept in `out`, which stays in L1: registers are for sums.
template <int kRows>
inline void int4_block(const PanelProduct& p, const Pass& pass, Inputs inputs) {
  constexpr int kTurns = kIntVecs / IntVec::kInt4Vecs;
  constexpr int kParts = 4 * kRows;
  const int64_t row = pass.first_row;
  const std::byte* x[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    x[r] = p.rows[row + r];
  float* totals = p.out + row * kPanelCols;
  const int64_t first_group = inputs.begin / kInt4Group;
  const int64_t num_groups = (inputs.end - inputs.begin) / kInt4Group;
  const auto* starts =
      reinterpret_cast<const int32_t*>(p.prepared) + first_group * p.num_rows + row;
  const std::byte* group = p.panel + first_group * kInt4GroupBytes;
  const auto run = [&](const auto& prefetch) __attribute__((always_inline)) {
    for (int64_t g = 0; g < num_groups; ++g) {
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const auto ask = [&](int part) __attribute__((always_inline)) {
          prefetch.template before<kTurns * kParts>(g, turn * kParts + part);
        };
        int4_group<kRows>(x, inputs.begin + g * kInt4Group, starts, group,
                          turn * IntVec::kInt4Vecs * Vec::kLanes, ask, totals);
      }
      group += kInt4GroupBytes;
      starts += p.num_rows;
    }
  };
  with_prefetch<kInt4GroupBytes, 1>(pass, 0,
                                    {.packed = group, .bytes = num_groups * kInt4GroupBytes}, run);
}

template <typename Each>
inline void for_each_vector(const PanelProduct& p, Each&& each) {
  for (int64_t r = 0; r < p.num_rows; ++r) {
    for (int64_t c = 0; c < kPanelCols; c += Vec::kLanes)
      each(r, p.out + r * kPanelCols + c);
  }
}

// A single pass reads the panel from start to end; several share blocks that stay in L1, beside the
// totals.
inline void multiply_int4(const PanelProduct& p) {
  constexpr int64_t kInL1 = Vec::kBlockBytes / 4 / kInt4GroupCodes * kInt4Group;
  const int64_t step = p.num_rows <= IntVec::kInt4RowsMax ? p.kp : kInL1;
  for_each_vector(p, [](int64_t, float* out) { Vec::store(out, Vec::zero()); });
  for (int64_t begin = 0; begin < p.kp; begin += step) {
    const Inputs inputs{begin, least(begin + step, p.kp)};
    for_row_groups<IntVec::kInt4RowsMax>(
        p.num_rows, [&]<int kRows>(const Pass& pass) { int4_block<kRows>(p, pass, inputs); });
  }
  for_each_vector(p, [&](int64_t r, float* out) {
    Vec::store(out, Vec::mul(Vec::load(out), Vec::set(row_scale(p, r))));
  });
}

}  // namespace
}  // namespace wideep::math
