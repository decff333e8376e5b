// AVX-512 BF16 + VBMI: rows kBf16 by vdpbf16ps, which adds the products of inputs 2i and 2i + 1 to
// a sum in one instruction; i ascends. fp8 weights become bf16 in registers where few rows wait for
// them, and in an L1 block that many rows share: the same products and the same sums.
#include "math/fp8_vbmi-inl.h"
#include "math/kernel_tables.h"
#include "math/vec_avx512-inl.h"

// The generic kernels on those vectors.
#include "math/gemm_table-inl.h"

namespace wideep::math {
namespace {

constexpr int kBf16Rows = 6;
constexpr int kFp8Rows = 4;  // the tables of Fp8ToBf16 need registers too

struct Bf16Lines {
  static constexpr int64_t kLineBytes = 256;

  // Two inputs x 32 columns.
  void load(const std::byte* line, int half, __m512i (&w)[2]) const {
    w[0] = _mm512_loadu_si512(line + half * 128);
    w[1] = _mm512_loadu_si512(line + half * 128 + 64);
  }
};

struct Fp8Lines {
  static constexpr int64_t kLineBytes = 128;
  Fp8ToBf16 convert;

  void load(const std::byte* line, int half, __m512i (&w)[2]) const {
    convert(line + half * 64, w);
  }
};

struct Bf16Block {
  const std::byte* weights;
  const std::byte* packed;  // the same as they come from memory
  int64_t packed_line;      // bytes of two inputs there
  int64_t begin;            // inputs
  int64_t end;
  const float* scales;  // two, or null: sums go on from what `out` holds
};

template <typename Lines, int kRows>
inline void bf16_pairs(const Bf16Block& block,
                       const Pass& pass,
                       const std::byte* const* rows,
                       __m512 (&sums)[kRows][4]) {
  const Lines lines;
  const std::byte* x[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    x[r] = rows[r] + block.begin * 2;
  const int64_t pairs = (block.end - block.begin) / 2;
  // An expanded block has been read already: the next one is due.
  const auto prefetch_from = block.weights == block.packed ? prefetch_for : prefetch_next;
  const Prefetch prefetch =
      prefetch_from(pass, block.packed, pairs * block.packed_line, block.packed_line);
  for (int64_t i = 0; i < pairs; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      __m512i w[2];
      prefetch.before<2>(i, half);
      lines.load(block.weights + i * Lines::kLineBytes, half, w);
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

template <typename Lines, int kRows>
inline void bf16_block(const Bf16Block& block,
                       const Pass& pass,
                       const std::byte* const* rows,
                       float* out,
                       int64_t stride) {
  __m512 sums[kRows][4];
  const bool carry = block.scales == nullptr && block.begin > 0;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int v = 0; v < 4; ++v)
      sums[r][v] = carry ? _mm512_loadu_ps(out + r * stride + v * 16) : _mm512_setzero_ps();
  }
  bf16_pairs<Lines, kRows>(block, pass, rows, sums);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      float* to = out + r * stride + v * 16;
      __m512 sum = sums[r][v];
      if (block.scales != nullptr) {
        const __m512 scale = _mm512_set1_ps(block.scales[v / 2]);
        sum = block.begin == 0 ? _mm512_mul_ps(sum, scale)
                               : _mm512_fmadd_ps(sum, scale, _mm512_loadu_ps(to));
      }
      _mm512_storeu_ps(to, sum);
    }
  }
}

template <typename Lines, int kRowsMax>
inline void bf16_rows(const PanelProduct& p, const Bf16Block& block) {
  for_row_groups<kRowsMax>(p.num_rows, [&]<int kRows>(const Pass& pass) {
    bf16_block<Lines, kRows>(block, pass, p.rows + pass.first_row,
                             p.out + pass.first_row * p.out_stride, p.out_stride);
  });
}

void multiply_bf16(const PanelProduct& p) {
  // 32 KiB of weights stay in L1 while all groups of rows pass; one group needs no blocks.
  const int64_t step = p.num_rows <= kBf16Rows ? p.kp : 256;
  for (int64_t begin = 0; begin < p.kp; begin += step) {
    const std::byte* weights = p.panel + begin * kPanelCols * 2;
    bf16_rows<Bf16Lines, kBf16Rows>(p, {.weights = weights,
                                        .packed = weights,
                                        .packed_line = Bf16Lines::kLineBytes,
                                        .begin = begin,
                                        .end = least(begin + step, p.kp),
                                        .scales = nullptr});
  }
}

void multiply_fp8(const PanelProduct& p) {
  alignas(64) std::byte expanded[kScaleBlock * kPanelCols * 2];
  for (int64_t begin = 0; begin < p.kp; begin += kScaleBlock) {
    const std::byte* codes = p.panel + begin * kPanelCols;
    Bf16Block block{.weights = codes,
                    .packed = codes,
                    .packed_line = Fp8Lines::kLineBytes,
                    .begin = begin,
                    .end = least(begin + kScaleBlock, p.kp),
                    .scales = reinterpret_cast<const float*>(p.scales) + begin / kScaleBlock * 2};
    if (p.num_rows <= kFp8Rows) {
      bf16_rows<Fp8Lines, kFp8Rows>(p, block);
    } else {
      expand_fp8_to_bf16(block.weights, block.end - begin, expanded);
      block.weights = expanded;
      bf16_rows<Bf16Lines, kBf16Rows>(p, block);
    }
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
