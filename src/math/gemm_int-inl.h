// Integer products: rows kInt8 x weights kInt8, kInt4. Included by the AVX2 and AVX-512 levels,
// which define before it:
//
//   struct IntVec { using I = vector of i32; kLanes; kRowsMax; zero, load, store, broadcast,
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

// kRows rows x kCount vectors over inputs [begin, end); sums of a block wait in `out` as i32.
template <int kRows, int kCount>
inline void int8_block(
    const PanelProduct& p, const Pass& pass, int first, int64_t begin, int64_t end) {
  const int64_t row = pass.first_row;
  IntVec::I sums[kRows][kCount];
  const std::byte* x[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    x[r] = p.rows[row + r];
    const float* out = p.out + (row + r) * p.out_stride;
#pragma unroll
    for (int v = 0; v < kCount; ++v) {
      sums[r][v] = begin == 0 ? IntVec::broadcast(-128 * row_sum(p, row + r))
                              : IntVec::load(out + (first + v) * IntVec::kLanes);
    }
  }
  const std::byte* w = p.panel + first * IntVec::kLanes * 4;
  const Prefetch prefetch =
      prefetch_for(pass, p.panel + begin * kPanelCols, (end - begin) * kPanelCols, 4 * kPanelCols);
  for (int64_t k = begin; k < end; k += 4) {
    IntVec::Weights weights[kCount];
#pragma unroll
    for (int v = 0; v < kCount; ++v)
      weights[v] = IntVec::load_weights(w + k * kPanelCols + v * IntVec::kLanes * 4);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      prefetch.before<kRows>((k - begin) / 4, r);
      const IntVec::Quad quad = IntVec::quad(x[r] + k);
#pragma unroll
      for (int v = 0; v < kCount; ++v)
        sums[r][v] = IntVec::dot(sums[r][v], weights[v], quad);
    }
  }
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

// The pass of one turn over `count` vectors of columns, from `first` on.
inline Pass turn_of(const Pass& rows, int first, int count) {
  const int turns = kIntVecs / count;
  return {.first_row = rows.first_row,
          .index = rows.index * turns + first / count,
          .count = rows.count * turns};
}

template <int kRows>
constexpr int int_vectors() {
  int count = kIntVecs;
  while (count > 1 && kRows * count + count * IntVec::kWeightRegisters + 3 > IntVec::kRegisters)
    count /= 2;
  return count;
}

inline void multiply_int8(const PanelProduct& p) {
  constexpr int64_t kInL1 = 512;  // 32 KiB of weights
  const int64_t step = p.num_rows <= IntVec::kOnePassRows ? p.kp : kInL1;
  for (int64_t begin = 0; begin < p.kp; begin += step) {
    const int64_t end = least(begin + step, p.kp);
    for_row_groups<IntVec::kRowsMax>(p.num_rows, [&]<int kRows>(const Pass& pass) {
      constexpr int kCount = int_vectors<kRows>();
      for (int first = 0; first < kIntVecs; first += kCount)
        int8_block<kRows, kCount>(p, turn_of(pass, first, kCount), first, begin, end);
    });
  }
}

// Sums of the codes of each group of 32, in front of all panels: i32 [rows][kp/32].
inline void prepare_int4(const PanelProduct& p, std::byte* prepared) {
  auto* sums = reinterpret_cast<int32_t*>(prepared);
  for (int64_t r = 0; r < p.num_rows; ++r) {
    const auto* codes = reinterpret_cast<const int8_t*>(p.rows[r]);
    for (int64_t k = 0; k < p.kp; k += kInt4Group) {
      int32_t sum = 0;
      for (int64_t i = 0; i < kInt4Group; ++i)
        sum += codes[k + i];
      *sums++ = sum;
    }
  }
}

// One group of 32 inputs: kRows rows x one vector of columns, added to `totals`.
template <int kRows>
inline void int4_group(const std::byte* const* x,
                       const int32_t* const* group_sums,
                       const std::byte* codes,
                       IntVec::F scale,
                       IntVec::F (&totals)[kRows]) {
  IntVec::I sums[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    sums[r] = IntVec::broadcast(-8 * *group_sums[r]);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    IntVec::Weights low;
    IntVec::Weights high;
    IntVec::load_nibbles(codes + j * kPanelCols * 4, low, high);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      sums[r] = IntVec::dot(sums[r], low, IntVec::quad(x[r] + 8 * j));
      sums[r] = IntVec::dot(sums[r], high, IntVec::quad(x[r] + 8 * j + 4));
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    totals[r] = IntVec::fma(IntVec::to_f32(sums[r]), scale, totals[r]);
}

template <int kRows, int kCount>
inline void int4_block(
    const PanelProduct& p, const Pass& pass, int first, int64_t begin, int64_t end) {
  const int64_t row = pass.first_row;
  IntVec::F totals[kCount][kRows];
  float* out = p.out + row * p.out_stride + first * IntVec::kLanes;
#pragma unroll
  for (int v = 0; v < kCount; ++v) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      totals[v][r] = begin == 0 ? IntVec::zero_f32()
                                : IntVec::load_f32(out + r * p.out_stride + v * IntVec::kLanes);
    }
  }
  const int64_t first_group = begin / kInt4Group;
  const Prefetch prefetch =
      prefetch_for(pass, p.panel + first_group * kInt4GroupBytes,
                   (end - begin) / kInt4Group * kInt4GroupBytes, kInt4GroupBytes);
  for (int64_t k = begin; k < end; k += kInt4Group) {
    const std::byte* group = p.panel + k / kInt4Group * kInt4GroupBytes;
    const std::byte* x[kRows];
    const int32_t* group_sums[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      x[r] = p.rows[row + r] + k;
      group_sums[r] = reinterpret_cast<const int32_t*>(p.prepared) +
                      (row + r) * (p.kp / kInt4Group) + k / kInt4Group;
    }
#pragma unroll
    for (int v = 0; v < kCount; ++v) {
      prefetch.before<kCount>(k / kInt4Group - first_group, v);
      const int column = (first + v) * IntVec::kLanes;
      int4_group<kRows>(x, group_sums, group + column * 4,
                        IntVec::load_bf16(group + kInt4GroupCodes + column * 2), totals[v]);
    }
  }
#pragma unroll
  for (int v = 0; v < kCount; ++v) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      IntVec::F total = totals[v][r];
      if (end == p.kp) total = IntVec::mul(total, row_scale(p, row + r));
      IntVec::store_f32(out + r * p.out_stride + v * IntVec::kLanes, total);
    }
  }
}

// Many rows where registers allow it: the weights of a group and two vectors of columns, unpacked
// once, stay in sixteen registers while all rows pass; totals wait in `out`.
inline void int4_group_many(const PanelProduct& p, int64_t k, int column) {
  const std::byte* group = p.panel + k / kInt4Group * kInt4GroupBytes;
  IntVec::F scales[2];
  IntVec::Weights weights[2][8];
#pragma unroll
  for (int v = 0; v < 2; ++v) {
    const int64_t first = column + v * IntVec::kLanes;
    scales[v] = IntVec::load_bf16(group + kInt4GroupCodes + first * 2);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      IntVec::load_nibbles(group + (j * kPanelCols + first) * 4, weights[v][2 * j],
                           weights[v][2 * j + 1]);
    }
  }
  const int64_t groups = p.kp / kInt4Group;
  const int32_t* group_sums = reinterpret_cast<const int32_t*>(p.prepared) + k / kInt4Group;
  float* out = p.out + column;
  for (int64_t r = 0; r < p.num_rows; ++r, out += p.out_stride, group_sums += groups) {
    const std::byte* x = p.rows[r] + k;
    IntVec::I sums[2];
    sums[0] = IntVec::broadcast(-8 * *group_sums);
    sums[1] = sums[0];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const IntVec::Quad quad = IntVec::quad(x + 4 * j);
      sums[0] = IntVec::dot(sums[0], weights[0][j], quad);
      sums[1] = IntVec::dot(sums[1], weights[1][j], quad);
    }
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      float* to = out + v * IntVec::kLanes;
      const IntVec::F before = k == 0 ? IntVec::zero_f32() : IntVec::load_f32(to);
      IntVec::store_f32(to, IntVec::fma(IntVec::to_f32(sums[v]), scales[v], before));
    }
  }
}

inline void multiply_int4_many(const PanelProduct& p) {
  for (int64_t k = 0; k < p.kp; k += kInt4Group) {
    const std::byte* group = p.panel + k / kInt4Group * kInt4GroupBytes;
    for (int64_t offset = 0; offset < kInt4GroupBytes; offset += kCacheLine)
      prefetch_l2(group + kPrefetchBytes + offset);
    for (int column = 0; column < kPanelCols; column += 2 * IntVec::kLanes)
      int4_group_many(p, k, column);
  }
  for (int64_t r = 0; r < p.num_rows; ++r) {
    float* out = p.out + r * p.out_stride;
    for (int column = 0; column < kPanelCols; column += IntVec::kLanes)
      IntVec::store_f32(out + column, IntVec::mul(IntVec::load_f32(out + column), row_scale(p, r)));
  }
}

inline void multiply_int4(const PanelProduct& p) {
  if (IntVec::kRegisters >= 32 && p.num_rows > IntVec::kInt4RowsMax) return multiply_int4_many(p);
  constexpr int64_t kInL1 = 32 * kInt4Group;  // 36 KiB of weights
  const bool one_pass = p.num_rows <= IntVec::kInt4RowsMax && kIntVecs == IntVec::kInt4Vectors;
  const int64_t step = one_pass ? p.kp : kInL1;
  for (int64_t begin = 0; begin < p.kp; begin += step) {
    const int64_t end = least(begin + step, p.kp);
    for_row_groups<IntVec::kInt4RowsMax>(p.num_rows, [&]<int kRows>(const Pass& pass) {
      constexpr int kCount = kIntVecs < IntVec::kInt4Vectors ? kIntVecs : IntVec::kInt4Vectors;
      for (int first = 0; first < kIntVecs; first += kCount)
        int4_block<kRows, kCount>(p, turn_of(pass, first, kCount), first, begin, end);
    });
  }
}

}  // namespace
}  // namespace wideep::math
