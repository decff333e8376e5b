// Integer products: rows kInt8 x weights kInt8, kInt4. Included by the AVX2 and AVX-512 levels,
// which define before it:
//
//   struct IntVec { using I = vector of i32; kLanes; zero, load, store, broadcast,
//                   kRowsMax, kInt4RowsMax: rows of one group; kOnePassRows, kInt4WholeRows: rows
//                   that keep sums of all columns in registers;
//                   dot(sums, weights u8, Quad) adds the products of four u8 with four i8 of a row
//                   quad(row bytes) -> Quad; to_f32(I), nibbles, …}
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

constexpr int kIntVecs = 64 / IntVec::kLanes;

inline float row_scale(const PanelProduct& p, int64_t r) {
  return *reinterpret_cast<const float*>(p.rows[r] + p.kp);
}

inline int32_t row_sum(const PanelProduct& p, int64_t r) {
  return *reinterpret_cast<const int32_t*>(p.rows[r] + p.kp + 4);
}

// Inputs [begin, end), whole steps.
struct Inputs {
  int64_t begin;
  int64_t end;
};

template <int kRows, int kCount, int kAhead>
[[gnu::always_inline]] inline void int8_quads(const std::byte* const* rows,
                                              const std::byte* w,
                                              Inputs inputs,
                                              const Prefetch<kAhead>& prefetch,
                                              IntVec::I (&sums)[kRows][kCount]) {
  const std::byte* x[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    x[r] = rows[r];
  for (int64_t k = inputs.begin; k < inputs.end; k += 4) {
    IntVec::Weights weights[kCount];
#pragma unroll
    for (int v = 0; v < kCount; ++v)
      weights[v] = IntVec::load_weights(w + k * kPanelCols + v * IntVec::kLanes * 4);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      prefetch.template before<kRows>((k - inputs.begin) / 4, r);
      const IntVec::Quad quad = IntVec::quad(x[r] + k);
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
  IntVec::I sums[kRows][kCount];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float* out = p.out + (row + r) * p.out_stride;
#pragma unroll
    for (int v = 0; v < kCount; ++v) {
      sums[r][v] = begin == 0 ? IntVec::broadcast(-128 * row_sum(p, row + r))
                              : IntVec::load(out + (first + v) * IntVec::kLanes);
    }
  }
  with_prefetch<4 * kPanelCols, kIntVecs / kCount>(
      pass, first / kCount,
      {.packed = p.panel + begin * kPanelCols, .bytes = (end - begin) * kPanelCols},
      [&](const auto& prefetch) __attribute__((always_inline)) {
        int8_quads<kRows, kCount>(p.rows + row, p.panel + first * IntVec::kLanes * 4, inputs,
                                  prefetch, sums);
      });
  const auto* scales = reinterpret_cast<const float*>(p.scales) + first * IntVec::kLanes;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float* out = p.out + (row + r) * p.out_stride + first * IntVec::kLanes;
#pragma unroll
    for (int v = 0; v < kCount; ++v) {
      if (end < p.kp) {
        IntVec::store(out + v * IntVec::kLanes, sums[r][v]);
      } else {
        IntVec::store_scaled(out + v * IntVec::kLanes, sums[r][v], scales + v * IntVec::kLanes,
                             row_scale(p, row + r));
      }
    }
  }
}

template <int kRows>
constexpr int int_vectors() {
  int count = kIntVecs;
  while (count > 1 && kRows * count + count * IntVec::kWeightRegisters + 3 > IntVec::kRegisters)
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

// The group of 32 inputs from k on: kRows rows x one vector of columns, added to `totals`.
template <int kRows>
[[gnu::always_inline]] inline void int4_group(const std::byte* const (&x)[kRows],
                                              int64_t k,
                                              const int32_t* starts,
                                              const std::byte* codes,
                                              IntVec::F scale,
                                              IntVec::F (&totals)[kRows]) {
  IntVec::I sums[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    sums[r] = IntVec::broadcast(starts[r]);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    IntVec::Weights low;
    IntVec::Weights high;
    IntVec::load_nibbles(codes + j * kPanelCols * 4, low, high);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      sums[r] = IntVec::dot(sums[r], low, IntVec::quad(x[r] + k + 8 * j));
      sums[r] = IntVec::dot(sums[r], high, IntVec::quad(x[r] + k + 8 * j + 4));
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    totals[r] = IntVec::fma(IntVec::to_f32(sums[r]), scale, totals[r]);
}

template <int kRows, int kCount, int kAhead>
[[gnu::always_inline]] inline void int4_groups(const PanelProduct& p,
                                               int64_t row,
                                               int first,
                                               Inputs inputs,
                                               const Prefetch<kAhead>& prefetch,
                                               IntVec::F (&totals)[kCount][kRows]) {
  const std::byte* x[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    x[r] = p.rows[row + r];
  const int64_t first_group = inputs.begin / kInt4Group;
  const auto* starts =
      reinterpret_cast<const int32_t*>(p.prepared) + first_group * p.num_rows + row;
  const std::byte* group = p.panel + first_group * kInt4GroupBytes;
  for (int64_t k = inputs.begin; k < inputs.end; k += kInt4Group) {
#pragma unroll
    for (int v = 0; v < kCount; ++v) {
      prefetch.template before<kCount>(k / kInt4Group - first_group, v);
      const int column = (first + v) * IntVec::kLanes;
      int4_group<kRows>(x, k, starts, group + column * 4,
                        IntVec::load_bf16(group + kInt4GroupCodes + column * 2), totals[v]);
    }
    group += kInt4GroupBytes;
    starts += p.num_rows;
  }
}

// kRows rows x kCount vectors of columns; totals of a block wait in `out`.
template <int kRows, int kCount>
inline void int4_block(const PanelProduct& p, const Pass& pass, int first, Inputs inputs) {
  const int64_t row = pass.first_row;
  const auto [begin, end] = inputs;
  IntVec::F totals[kCount][kRows];
  const auto out = [&](int v, int r) {
    return p.out + (row + r) * p.out_stride + (first + v) * IntVec::kLanes;
  };
#pragma unroll
  for (int v = 0; v < kCount; ++v) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      totals[v][r] = begin == 0 ? IntVec::zero_f32() : IntVec::load_f32(out(v, r));
  }
  with_prefetch<kInt4GroupBytes, kIntVecs / kCount>(
      pass, first / kCount,
      {.packed = p.panel + begin / kInt4Group * kInt4GroupBytes,
       .bytes = (end - begin) / kInt4Group * kInt4GroupBytes},
      [&](const auto& prefetch) __attribute__((always_inline)) {
        int4_groups<kRows, kCount>(p, row, first, inputs, prefetch, totals);
      });
#pragma unroll
  for (int v = 0; v < kCount; ++v) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (end == p.kp) totals[v][r] = IntVec::mul(totals[v][r], row_scale(p, row + r));
      IntVec::store_f32(out(v, r), totals[v][r]);
    }
  }
}

// One or two rows keep the totals of all columns and read the panel in order. More rows unpack the
// nibbles of one vector of columns once for all of them, from a block that stays in L1.
inline void multiply_int4(const PanelProduct& p) {
  constexpr int64_t kInL1 = Vec::kBlockBytes / kInt4GroupCodes * kInt4Group;
  const int64_t step = p.num_rows <= IntVec::kInt4WholeRows ? p.kp : kInL1;
  for (int64_t begin = 0; begin < p.kp; begin += step) {
    const Inputs inputs{begin, least(begin + step, p.kp)};
    for_row_groups<IntVec::kInt4RowsMax>(p.num_rows, [&]<int kRows>(const Pass& pass) {
      constexpr int kCount = kRows <= IntVec::kInt4WholeRows ? kIntVecs : 1;
      for (int first = 0; first < kIntVecs; first += kCount)
        int4_block<kRows, kCount>(p, pass, first, inputs);
    });
  }
}

}  // namespace
}  // namespace wideep::math
