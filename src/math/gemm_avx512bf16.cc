// AVX-512 BF16 + VBMI: rows kBf16 by vdpbf16ps, which adds the products of inputs 2i and 2i + 1 to
// a sum in one instruction; i ascends. fp8 weights become bf16 in registers: the same products and
// the same sums.
//
// Few rows keep sums of all 64 columns; up to eight take the columns in two halves, each line of
// weights being read (and each code converted) once for all of them.
#include "math/fp8_vbmi-inl.h"
#include "math/kernel_tables.h"
#include "math/vec_avx512-inl.h"

// The generic kernels on those vectors.
#include "math/gemm_table-inl.h"

namespace wideep::math {
namespace {

constexpr int kRowsMax = 8;
constexpr int kHalves = 2;  // of a panel's columns

struct Bf16Lines {
  static constexpr int64_t kLineBytes = 256;
  static constexpr int kWholeRows = 6;  // rows whose sums of all columns fit into registers

  // Two inputs x 32 columns.
  void load(const std::byte* line, int half, __m512i (&w)[2]) const {
    w[0] = _mm512_loadu_si512(line + half * 128);
    w[1] = _mm512_loadu_si512(line + half * 128 + 64);
  }
};

struct Fp8Lines {
  static constexpr int64_t kLineBytes = 128;
  static constexpr int kWholeRows = 4;  // the tables of Fp8ToBf16 need registers too
  Fp8ToBf16 convert;

  void load(const std::byte* line, int half, __m512i (&w)[2]) const {
    convert(line + half * 64, w);
  }
};

struct Bf16Block {
  const std::byte* weights;
  int64_t begin;  // inputs
  int64_t end;
  const float* scales;  // two, or null: sums go on from what `out` holds
};

// kRows rows x kCount halves of the columns, from `first` on.
template <typename Lines, int kRows, int kCount, int kAhead>
[[gnu::always_inline]] inline void bf16_pairs(const Bf16Block& block,
                                              int first,
                                              const std::byte* const* rows,
                                              const Prefetch<kAhead>& prefetch,
                                              __m512 (&sums)[kRows][2 * kCount]) {
  const Lines lines;
  const std::byte* x[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    x[r] = rows[r] + block.begin * 2;
  const int64_t pairs = (block.end - block.begin) / 2;
  for (int64_t i = 0; i < pairs; ++i) {
#pragma unroll
    for (int half = 0; half < kCount; ++half) {
      __m512i w[2];
      prefetch.template before<kCount>(i, half);
      lines.load(block.weights + i * Lines::kLineBytes, first + half, w);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const auto pair = reinterpret_cast<__m512bh>(
            _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(x[r] + i * 4)));
#pragma unroll
        for (int v = 0; v < 2; ++v) {
          __m512& sum = sums[r][2 * half + v];
          sum = _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w[v]), pair);
        }
      }
    }
  }
}

template <typename Lines, int kRows, int kCount>
inline void bf16_block(const PanelProduct& p, const Bf16Block& block, const Pass& pass, int first) {
  __m512 sums[kRows][2 * kCount];
  float* out = p.out + pass.first_row * kPanelCols + first * 32;
  const bool carry = block.scales == nullptr && block.begin > 0;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int v = 0; v < 2 * kCount; ++v)
      sums[r][v] = carry ? _mm512_loadu_ps(out + r * kPanelCols + v * 16) : _mm512_setzero_ps();
  }
  const Block packed{.packed = block.weights,
                     .bytes = (block.end - block.begin) / 2 * Lines::kLineBytes};
  with_prefetch<Lines::kLineBytes, kHalves / kCount>(
      pass, first / kCount, packed, [&](const auto& prefetch) __attribute__((always_inline)) {
        bf16_pairs<Lines, kRows, kCount>(block, first, p.rows + pass.first_row, prefetch, sums);
      });
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int v = 0; v < 2 * kCount; ++v) {
      float* to = out + r * kPanelCols + v * 16;
      __m512 sum = sums[r][v];
      if (block.scales != nullptr) {
        const __m512 scale = _mm512_set1_ps(block.scales[first + v / 2]);
        sum = block.begin == 0 ? _mm512_mul_ps(sum, scale)
                               : _mm512_fmadd_ps(sum, scale, _mm512_loadu_ps(to));
      }
      _mm512_storeu_ps(to, sum);
    }
  }
}

template <typename Lines>
inline void bf16_rows(const PanelProduct& p, const Bf16Block& block) {
  for_row_groups<kRowsMax>(p.num_rows, [&]<int kRows>(const Pass& pass) {
    constexpr int kCount = kRows <= Lines::kWholeRows ? kHalves : 1;
    for (int first = 0; first < kHalves; first += kCount)
      bf16_block<Lines, kRows, kCount>(p, block, pass, first);
  });
}

void multiply_bf16(const PanelProduct& p) {
  // A block of weights stays in L1 for all passes; a single pass needs no blocks.
  constexpr int64_t kInL1 = Vec::kBlockBytes / (kPanelCols * 2);
  const int64_t step = p.num_rows <= Bf16Lines::kWholeRows ? p.kp : kInL1;
  for (int64_t begin = 0; begin < p.kp; begin += step) {
    bf16_rows<Bf16Lines>(p, {.weights = p.panel + begin * kPanelCols * 2,
                             .begin = begin,
                             .end = least(begin + step, p.kp),
                             .scales = nullptr});
  }
}

void multiply_fp8(const PanelProduct& p) {
  for (int64_t begin = 0; begin < p.kp; begin += kScaleBlock) {
    bf16_rows<Fp8Lines>(
        p, {.weights = p.panel + begin * kPanelCols,
            .begin = begin,
            .end = least(begin + kScaleBlock, p.kp),
            .scales = reinterpret_cast<const float*>(p.scales) + begin / kScaleBlock * 2});
  }
}

void multiply_panel_bf16(const PanelProduct& p) {
  if (p.row_format != RowFormat::kBf16) return multiply_panel(p);
  if (p.format == WeightFormat::kBf16) return multiply_bf16(p);
  multiply_fp8(p);
}

// bf16 rows serve as they are.
int64_t prepared_bytes_bf16(const PanelProduct& p) {
  return p.row_format == RowFormat::kBf16 ? 0 : prepared_bytes(p);
}

void prepare_rows_bf16(const PanelProduct& p, std::byte* prepared) {
  if (p.row_format != RowFormat::kBf16) prepare_rows(p, prepared);
}

}  // namespace

namespace avx512bf16 {

void add_gemm(Kernels& table) {
  table.multiply_panel = multiply_panel_bf16;
  table.prepared_bytes = prepared_bytes_bf16;
  table.prepare_rows = prepare_rows_bf16;
}

}  // namespace avx512bf16
}  // namespace wideep::math
