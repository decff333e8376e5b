// Products in f32 with fused multiply-add: rows kF32 (or prepared so) x weights kF32, kBf16, kFp8.
// Included by the AVX2 and AVX-512 levels, which define before it:
//
//   struct Vec   { using F = vector of f32; kLanes; kRowsMax, kOnePassRows, kBlockBytes;
//                  zero, load, store, broadcast, fma, mul }
//   struct F32Weights, Bf16Weights, Fp8Weights
//     kValueBytes       bytes of one weight
//     load(line, c, even, odd)   line: the weights of two inputs, 64 columns; fills the vectors of
//                       input 2i and of input 2i + 1 for the c-th pair of vectors of columns
//     arrange(x, y)     brings sums of such a pair into ascending columns
//     column(v)         first column of vector v after arrange
//     kFactor           of Fp8Weights: rows are prepared as much larger as these load too small
//
// Order of every sum: input 0, 1, 2, …; fp8: per block of 128 inputs, then fma(sum, scale, total).
#pragma once

#include "math/packed_layout.h"
#include "math/panel_product.h"
#include "math/rows-inl.h"

namespace wideep::math {
namespace {

constexpr int kVecs = 64 / Vec::kLanes;  // vectors of a panel's columns

// kRows rows x kCount vectors (from vector `first` on) over `pairs` pairs of inputs.
template <typename Weights, int kRows, int kCount, int kAhead>
[[gnu::always_inline]] inline void fma_pairs(const float* const* x,
                                             const std::byte* w,
                                             int64_t pairs,
                                             int first,
                                             const Prefetch<kAhead>& prefetch,
                                             Vec::F (&sums)[kRows][kCount]) {
  constexpr int64_t kLine = kPanelCols * 2 * Weights::kValueBytes;
  for (int64_t i = 0; i < pairs; ++i) {
#pragma unroll
    for (int c = 0; c < kCount / 2; ++c) {
      Vec::F even[2];
      Vec::F odd[2];
      prefetch.template before<kCount / 2>(i, c);
      Weights::load(w + i * kLine, first / 2 + c, even, odd);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const Vec::F x0 = Vec::broadcast(x[r] + 2 * i);
        const Vec::F x1 = Vec::broadcast(x[r] + 2 * i + 1);
        sums[r][2 * c] = Vec::fma(x1, odd[0], Vec::fma(x0, even[0], sums[r][2 * c]));
        sums[r][2 * c + 1] = Vec::fma(x1, odd[1], Vec::fma(x0, even[1], sums[r][2 * c + 1]));
      }
    }
  }
}

struct FmaBlock {
  const std::byte* weights;
  const std::byte* packed;  // the same as they come from memory
  int64_t begin;            // inputs
  int64_t end;
  bool is_first;
  const std::byte* scales;  // two f32, or null
};

template <int kRows, int kCount>
inline void store_sums(
    const Vec::F (&sums)[kRows][kCount], const FmaBlock& block, int64_t column, int v, float* out) {
  Vec::F scale = Vec::zero();
  if (block.scales != nullptr)
    scale = Vec::broadcast(reinterpret_cast<const float*>(block.scales) + column / 32);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float* to = out + r * kPanelCols + column;
    if (block.scales == nullptr) {
      Vec::store(to, sums[r][v]);
    } else if (block.is_first) {
      Vec::store(to, Vec::mul(sums[r][v], scale));
    } else {
      Vec::store(to, Vec::fma(sums[r][v], scale, Vec::load(to)));
    }
  }
}

// One block of inputs of kRows rows: into `out`, which holds the sums of the blocks before.
template <typename Weights, int kPackedBytes, int kRows, int kCount>
inline void fma_block(const FmaBlock& block,
                      const Pass& pass,
                      const float* const* rows,
                      float* out) {
  const float* x[kRows];
  for (int r = 0; r < kRows; ++r)
    x[r] = rows[r] + block.begin;
  for (int first = 0; first < kVecs; first += kCount) {
    Vec::F sums[kRows][kCount];
    const bool carry = block.scales == nullptr && !block.is_first;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int v = 0; v < kCount; ++v)
        sums[r][v] =
            carry ? Vec::load(out + r * kPanelCols + Weights::column(first + v)) : Vec::zero();
    }
    const int64_t pairs = (block.end - block.begin) / 2;
    constexpr int kStepBytes = kPanelCols * 2 * kPackedBytes;
    with_prefetch<kStepBytes, kVecs / kCount>(
        pass, first / kCount,
        {.packed = block.packed,
         .bytes = pairs * kStepBytes,
         .was_read = block.packed != block.weights},
        [&](const auto& prefetch) __attribute__((always_inline)) {
          fma_pairs<Weights, kRows, kCount>(x, block.weights, pairs, first, prefetch, sums);
        });
#pragma unroll
    for (int v = 0; v < kCount; v += 2) {
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        Weights::arrange(sums[r][v], sums[r][v + 1]);
      store_sums<kRows, kCount>(sums, block, Weights::column(first + v), v, out);
      store_sums<kRows, kCount>(sums, block, Weights::column(first + v + 1), v + 1, out);
    }
  }
}

// The vectors of columns that kRows rows keep in registers: sums + weights + one broadcast.
template <int kRows>
constexpr int fma_vectors() {
  int count = kVecs;
  while (count > 2 && kRows * count + 4 + 1 > Vec::kRegisters)
    count /= 2;
  return count;
}

template <typename Weights, int kPackedBytes = Weights::kValueBytes>
inline void fma_rows(const PanelProduct& p, const float* const* rows, const FmaBlock& block) {
  for_row_groups<Vec::kRowsMax>(p.num_rows, [&]<int kRows>(const Pass& pass) {
    fma_block<Weights, kPackedBytes, kRows, fma_vectors<kRows>()>(
        block, pass, rows + pass.first_row, p.out + pass.first_row * kPanelCols);
  });
}

// Weights of one block as f32, once for many groups of rows: the same products, the same sums.
template <typename Weights>
inline void expand(const std::byte* packed, int64_t inputs, float* out) {
  constexpr int64_t kLine = kPanelCols * 2 * Weights::kValueBytes;
  for (int64_t i = 0; i < inputs / 2; ++i) {
    for (int v = 0; v < kVecs; v += 2) {
      Vec::F even[2];
      Vec::F odd[2];
      Weights::load(packed + i * kLine, v / 2, even, odd);
      Weights::arrange(even[0], even[1]);
      Weights::arrange(odd[0], odd[1]);
      for (int h = 0; h < 2; ++h) {
        float* to = out + 2 * i * kPanelCols + Weights::column(v + h);
        Vec::store(to, even[h]);
        Vec::store(to + kPanelCols, odd[h]);
      }
    }
  }
}

template <typename Weights>
inline void fma_panel(const PanelProduct& p, const float* const* rows) {
  constexpr bool kScaled = Weights::kValueBytes == 1;
  constexpr bool kIsF32 = Weights::kValueBytes == 4;
  // bf16 widens by one instruction a vector: only a third group of rows pays for the detour.
  const bool expanding = !kIsF32 && p.num_rows > (kScaled ? 1 : 2) * Vec::kRowsMax;
  // A block of weights stays in L1 for all passes; a single pass needs no blocks.
  constexpr int64_t kInL1 = kScaled ? kScaleBlock : Vec::kBlockBytes / (kPanelCols * 4);
  const int64_t step = p.num_rows <= Vec::kOnePassRows && !kScaled ? p.kp : kInL1;
  alignas(64) float expanded[kIsF32 ? 1 : kInL1 * kPanelCols];
  for (int64_t begin = 0; begin < p.kp; begin += step) {
    const std::byte* weights = p.panel + begin * kPanelCols * Weights::kValueBytes;
    FmaBlock block{.weights = weights,
                   .packed = weights,
                   .begin = begin,
                   .end = least(begin + step, p.kp),
                   .is_first = begin == 0,
                   .scales = kScaled ? p.scales + begin / kScaleBlock * 8 : nullptr};
    if (expanding) {
      expand<Weights>(weights, block.end - begin, expanded);
      block.weights = reinterpret_cast<const std::byte*>(expanded);
      fma_rows<F32Weights, Weights::kValueBytes>(p, rows, block);
    } else {
      fma_rows<Weights>(p, rows, block);
    }
  }
}

constexpr int64_t kFmaRows = 64;

// Whether rows are multiplied in another form than theirs.
inline bool has_prepared_floats(const PanelProduct& p) {
  return p.row_format == RowFormat::kBf16 || p.format == WeightFormat::kFp8;
}

// At most 64 rows at a time.
inline void multiply_float(PanelProduct p) {
  const int64_t num_rows = p.num_rows;
  const bool prepared = has_prepared_floats(p);
  for (int64_t done = 0; done < num_rows; done += kFmaRows) {
    p.num_rows = least(kFmaRows, num_rows - done);
    const float* rows[kFmaRows];
    for (int64_t r = 0; r < p.num_rows; ++r) {
      const std::byte* row = prepared ? p.prepared + (done + r) * p.kp * 4 : p.rows[done + r];
      rows[r] = reinterpret_cast<const float*>(row);
    }
    switch (p.format) {
      case WeightFormat::kF32:
        fma_panel<F32Weights>(p, rows);
        break;
      case WeightFormat::kBf16:
        fma_panel<Bf16Weights>(p, rows);
        break;
      default:
        fma_panel<Fp8Weights>(p, rows);
        break;
    }
    p.out += p.num_rows * kPanelCols;
  }
}

// Rows as f32; for fp8 the factor that its weights lack is in them, exact up to 2^120.
inline void prepare_floats(const PanelProduct& p, std::byte* prepared) {
  const float factor = p.format == WeightFormat::kFp8 ? Fp8Weights::kFactor : 1;
  auto* to = reinterpret_cast<float*>(prepared);
  for (int64_t r = 0; r < p.num_rows; ++r, to += p.kp) {
    const auto* floats = reinterpret_cast<const float*>(p.rows[r]);
    const auto* halves = reinterpret_cast<const uint16_t*>(p.rows[r]);
    for (int64_t k = 0; k < p.kp; ++k) {
      const float x = p.row_format == RowFormat::kBf16
                          ? __builtin_bit_cast(float, uint32_t{halves[k]} << 16)
                          : floats[k];
      to[k] = x * factor;
    }
  }
}

}  // namespace
}  // namespace wideep::math
