// Step 5 at the token's own rank: the sum that every exchange takes alike, so that a token's bits
// do not depend on where its experts live.
#pragma once

#include "base/matrix.h"
#include "base/thread_pool.h"
#include "math/kernels.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace wideep::ep {

// What has come back for the tokens of one exchange. Borrowed.
struct Results {
  math::RowFormat format = math::RowFormat::kBf16;  // kF32 or kBf16
  int64_t top_k = 0;
  std::span<const std::byte* const> rows;  // [num_tokens][top_k] at least, each of x.cols values
  std::span<const float> weights;          // [num_tokens][top_k]
};

// x[t] += (sum_k weights[t][k] * rows[t][k]) + shared[t], the sum in f32 and in k order; `shared`
// may have no rows at all. x, shared: [num_tokens, hidden].
void add_results(const Results& results,
                 MatrixView<const float> shared,
                 MatrixView<float> x,
                 const math::Kernels& kernels,
                 ThreadPool& pool);

}  // namespace wideep::ep
