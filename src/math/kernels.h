// The table of kernels of one ISA level. Everything between matrix products that touches every
// value of a row lives here, so that it is vectorised once and its bits depend on the level alone.
//
// Rules for every entry (docs/architecture.md, promise 1): the result of a row depends on that row
// only, not on how many rows there are, how they are tiled, or which thread runs; reductions over a
// row have a fixed lane structure; no libm, no rcp/rsqrt estimates (own polynomials; sqrt and
// division are exact). Thread: all functions are pure.
#pragma once

#include "math/formats.h"
#include "math/isa.h"

#include <cstdint>
#include <span>

namespace wideep::math {

struct PanelProduct;  // math/panel_product.h

// Rows that belong together and what each counts: the results of a token's experts.
struct WeightedRows {
  RowFormat format = RowFormat::kBf16;  // kF32 or kBf16
  std::span<const std::byte* const> rows;
  std::span<const float> weights;  // as many
  // As many rows that will be added next: their beginnings are asked for early. None: nobody knows.
  std::span<const std::byte* const> next = {};
};

struct Kernels {
  Isa isa = Isa::kScalar;

  // Rows x one packed panel of 64 columns: the inner kernel of gemm.h, which is how to call it.
  void (*multiply_panel)(const PanelProduct& product) = nullptr;
  // Some levels read rows in an order of their own (tiles, f32 from bf16, sums of groups): bytes of
  // that form of product.rows, 0 if the rows serve as they are; and the function that fills it,
  // once for all panels that these rows meet.
  int64_t (*prepared_bytes)(const PanelProduct& product) = nullptr;
  void (*prepare_rows)(const PanelProduct& product, std::byte* prepared) = nullptr;

  // f32 row -> row of `format`, and back. See formats.h for the layout.
  void (*encode_row)(RowFormat format, const float* row, int64_t cols, std::byte* out) = nullptr;
  void (*decode_row)(RowFormat format, const std::byte* row, int64_t cols, float* out) = nullptr;

  // out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i], all in f32. `out` may be `x`.
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out) = nullptr;
  // out[i] = silu(gate[i]) * up[i], silu(g) = g / (1 + exp(-g)).
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out) = nullptr;
  // acc[i] = fma(weight, x[i], acc[i]); acc[i] += x[i].
  void (*axpy)(float weight, const float* x, int64_t n, float* acc) = nullptr;
  void (*add)(const float* x, int64_t n, float* acc) = nullptr;
  // The combine: sum = 0; sum = fma(weights[k], rows[k][i], sum) for each k in order; then
  // sum += shared[i], unless there is no `shared`; x[i] += sum.
  void (*add_weighted_rows)(const WeightedRows& rows,
                            const float* shared,
                            int64_t n,
                            float* x) = nullptr;
  // Copies whole cache lines (64-byte aligned, as many bytes) to memory that another core will
  // read, past the caches: to write into lines that others hold costs three times as much. Whoever
  // streamed calls stream_fence() before it tells anybody.
  void (*stream)(const std::byte* from, int64_t bytes, std::byte* to) = nullptr;
  void (*stream_fence)() = nullptr;
  // Rounds n values to bf16 and writes exactly those (no padding).
  void (*to_bf16)(const float* x, int64_t n, uint16_t* out) = nullptr;

  // exp(x) for x in [-104, 88], relative error <= 2^-22 (denormal results: half a unit more); below
  // it gives 0, above exp(88.7) or little more.
  void (*exp)(const float* x, int64_t n, float* out) = nullptr;
  void (*sigmoid)(const float* x, int64_t n, float* out) = nullptr;
  // x[i] = exp(x[i] - max) / sum: softmax in place. A NaN makes all of it NaN.
  void (*softmax)(float* x, int64_t n) = nullptr;

  // Rotates interleaved pairs: (a, b) = (x[2j], x[2j+1]) -> (a c_j - b s_j, a s_j + b c_j). `n`
  // values, n/2 cosines and sines.
  void (*rope_interleaved)(float* x, const float* cosines, const float* sines, int64_t n) = nullptr;
  // Rotates (x[j], x[j + n/2]).
  void (*rope_half)(float* x, const float* cosines, const float* sines, int64_t n) = nullptr;

  // Index of the largest value, the lowest index among equals; its value in *max. NaN counts as
  // -infinity; where nothing is above that, index 0.
  int64_t (*argmax)(const float* x, int64_t n, float* max) = nullptr;
  // log(sum(exp(x[i]))), the basis of log-probabilities.
  float (*log_sum_exp)(const float* x, int64_t n) = nullptr;
};

// The table of a level that this machine supports (checked).
const Kernels& kernels(Isa isa);

// The scalar table: slow, obvious, the judge of the others.
const Kernels& reference_kernels();

// log(x) for x > 0 and exp(x) in plain C++ without libm, for what is computed once per token.
float scalar_log(float x);
float scalar_exp(float x);

}  // namespace wideep::math
