#include "ep/combine.h"

#include "base/check.h"

namespace wideep::ep {

void add_results(const Results& results,
                 MatrixView<const float> shared,
                 MatrixView<float> x,
                 const math::Kernels& kernels,
                 ThreadPool& pool) {
  WD_CHECK(shared.rows == 0 || shared.rows == x.rows);
  const auto of_token = [&](auto per_token, int64_t t) {
    const auto top_k = static_cast<size_t>(results.top_k);
    return per_token.subspan(static_cast<size_t>(t) * top_k, top_k);
  };
  pool.for_each(x.rows, [&](int64_t t, int) {
    const int64_t next = t + pool.num_threads();  // likely this thread's next
    kernels.add_weighted_rows({.format = results.format,
                               .rows = of_token(results.rows, t),
                               .weights = of_token(results.weights, t),
                               .next = of_token(results.rows, next < x.rows ? next : t)},
                              shared.rows > 0 ? shared.row(t).data() : nullptr, x.cols,
                              x.row(t).data());
  });
}

}  // namespace wideep::ep
