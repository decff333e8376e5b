// The elementwise kernels, written once for every vector width. `S` is the Simd of a level.
//
// Reductions: value i belongs to lane i % L of accumulator (i / L) % 4; a row that does not fill
// them counts as padded. Accumulators are added as (0 + 1) + (2 + 3), lanes in ascending order by
// halves. So the bits depend on the row and the level alone.
#pragma once

#include "math/kernels.h"
#include "math/lanes-inl.h"
#include "math/polynomials.h"
#include "math/rows-inl.h"

#include <cstddef>
#include <cstdint>
#include <limits>

namespace wideep::math {
namespace {

template <typename S>
struct Elementwise : Lanes<S> {
  using typename Lanes<S>::Float;
  using Lanes<S>::kLanes, Lanes<S>::for_vectors, Lanes<S>::load, Lanes<S>::store;
  using Int = typename S::Int;
  static constexpr int kAccumulators = 4;
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();

  // Lanes past the end are `filler`.
  static Float load_filled(const float* p, int64_t lanes, Float filler) {
    if (lanes == kLanes) return S::load(p);
    const auto inside = S::less(S::lane_index(), S::set_int(static_cast<int32_t>(lanes)));
    return S::select(inside, S::load_first(p, lanes), filler);
  }

  // Folds the lanes by halves: lane i with lane i + L/2, and so on.
  template <typename Combine>
  static float fold(Float v, Combine combine) {
    float lanes[kLanes];
    S::store(lanes, v);
    for (int64_t half = kLanes / 2; half > 0; half /= 2) {
      for (int64_t i = 0; i < half; ++i)
        lanes[i] = combine(lanes[i], lanes[i + half]);
    }
    return lanes[0];
  }

  // Sum of term(offset, lanes) over a row; terms past the end must be zero.
  template <typename Term>
  static float sum_of(int64_t n, Term term) {
    Float sums[kAccumulators] = {S::zero(), S::zero(), S::zero(), S::zero()};
    int64_t i = 0;
    for (; i + kAccumulators * kLanes <= n; i += kAccumulators * kLanes) {
      for (int a = 0; a < kAccumulators; ++a)
        sums[a] = S::add(sums[a], term(i + a * kLanes, kLanes));
    }
    for (int a = 0; i < n; ++a, i += kLanes)
      sums[a] = S::add(sums[a], term(i, n - i < kLanes ? n - i : kLanes));
    const Float total = S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3]));
    return fold(total, [](float a, float b) { return a + b; });
  }

  // NaN counts as -infinity.
  static float max_of(const float* x, int64_t n) {
    const Float lowest = S::set(-kInfinity);
    Float best[2] = {lowest, lowest};
    int64_t i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
      best[0] = S::max(S::load(x + i), best[0]);
      best[1] = S::max(S::load(x + i + kLanes), best[1]);
    }
    for (; i < n; i += kLanes)
      best[0] = S::max(load_filled(x + i, n - i < kLanes ? n - i : kLanes, lowest), best[0]);
    return fold(S::max(best[0], best[1]), [](float a, float b) { return a < b ? b : a; });
  }

  // exp(x), at most exp(88.7); 0 below -104.
  static Float exp_of(Float x) {
    const Float clamped = S::min(S::set(88.7F), x);
    const Float n = S::round(S::mul(clamped, S::set(kLog2E)));
    Float r = S::fnma(n, S::set(kLn2High), clamped);
    r = S::fnma(n, S::set(kLn2Low), r);
    Float p = S::set(kExpPolynomial[5]);
    for (int i = 4; i >= 0; --i)
      p = S::fma(p, r, S::set(kExpPolynomial[static_cast<size_t>(i)]));
    p = S::fma(p, r, S::set(1.0F));
    const auto vanishes = S::less(x, S::set(-104.0F));
    return S::select(vanishes, S::zero(), S::scale(p, n));
  }

  static Float sigmoid_of(Float x) {
    const Float one = S::set(1.0F);
    return S::div(one, S::add(one, exp_of(S::sub(S::zero(), x))));
  }

  static void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
    const float sum = sum_of(n, [&](int64_t i, int64_t lanes) {
      const Float v = load(x + i, lanes);
      return S::mul(v, v);
    });
    const Float inverse = S::set(1.0F / __builtin_sqrtf(sum / static_cast<float>(n) + eps));
    for_vectors(n, [&](int64_t i, int64_t lanes) {
      const Float scaled = S::mul(load(x + i, lanes), inverse);
      store(out + i, S::mul(scaled, load(weight + i, lanes)), lanes);
    });
  }

  static void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
    for_vectors(n, [&](int64_t i, int64_t lanes) {
      const Float g = load(gate + i, lanes);
      const Float silu = S::mul(g, sigmoid_of(g));
      store(out + i, S::mul(silu, load(up + i, lanes)), lanes);
    });
  }

  static void axpy(float weight, const float* x, int64_t n, float* acc) {
    const Float w = S::set(weight);
    for_vectors(n, [&](int64_t i, int64_t lanes) {
      store(acc + i, S::fma(w, load(x + i, lanes), load(acc + i, lanes)), lanes);
    });
  }

  static void add(const float* x, int64_t n, float* acc) {
    for_vectors(n, [&](int64_t i, int64_t lanes) {
      store(acc + i, S::add(load(acc + i, lanes), load(x + i, lanes)), lanes);
    });
  }

  // As many columns at a time as registers hold: every row is one more stream from memory, and many
  // streams keep more loads in flight than one (measured: one row after the other into sums in L1
  // takes 1.4 times as long). Lines of the block after the next are asked for early, beyond the end
  // of the rows those of the next rows; likewise x, to be written.
  template <typename Load>
  static void add_weighted(
      const WeightedRows& rows, const float* shared, int64_t n, float* x, Load load_row) {
    constexpr int kVectors = S::kRegisters / 2;
    constexpr int64_t kStep = kVectors * kLanes;
    const int64_t step_bytes = kStep * (rows.format == RowFormat::kF32 ? 4 : 2);
    const auto finish = [&](int64_t i, int64_t lanes, Float sum) {
      if (shared != nullptr) sum = S::add(sum, load(shared + i, lanes));
      store(x + i, S::add(load(x + i, lanes), sum), lanes);
    };
    const int64_t num_steps = n / kStep;
    int64_t i = 0;
    for (int64_t step = 0; i + kStep <= n; i += kStep, ++step) {
      Float sums[kVectors];
      for (Float& sum : sums)
        sum = S::zero();
      for (int64_t line = 0; line < kStep; line += kCacheLine / 4)
        prefetch_for_write(x + i + kStep + line);
      const bool is_near_end = step + 2 >= num_steps && !rows.next.empty();
      const auto& source = is_near_end ? rows.next : rows.rows;
      const int64_t step_ahead = is_near_end ? step + 2 - num_steps : step + 2;
      for (size_t k = 0; k < rows.rows.size(); ++k) {
        const std::byte* ahead = source[k] + step_ahead * step_bytes;
        for (int64_t line = 0; line < step_bytes; line += kCacheLine)
          prefetch_l1(ahead + line);
        const Float w = S::set(rows.weights[k]);
        for (int v = 0; v < kVectors; ++v)
          sums[v] = S::fma(w, load_row(rows.rows[k], i + v * kLanes, kLanes), sums[v]);
      }
      for (int v = 0; v < kVectors; ++v)
        finish(i + v * kLanes, kLanes, sums[v]);
    }
    for (; i < n; i += kLanes) {
      const int64_t lanes = n - i < kLanes ? n - i : kLanes;
      Float sum = S::zero();
      for (size_t k = 0; k < rows.rows.size(); ++k)
        sum = S::fma(S::set(rows.weights[k]), load_row(rows.rows[k], i, lanes), sum);
      finish(i, lanes, sum);
    }
  }

  static void add_weighted_rows(const WeightedRows& rows,
                                const float* shared,
                                int64_t n,
                                float* x) {
    if (rows.format == RowFormat::kF32) {
      add_weighted(rows, shared, n, x, [](const std::byte* row, int64_t i, int64_t lanes) {
        return load(reinterpret_cast<const float*>(row) + i, lanes);
      });
      return;
    }
    add_weighted(rows, shared, n, x, [](const std::byte* row, int64_t i, int64_t lanes) {
      const auto* values = reinterpret_cast<const uint16_t*>(row) + i;
      return lanes == kLanes ? S::load_bf16(values) : S::load_bf16_first(values, lanes);
    });
  }

  static void stream(const std::byte* from, int64_t bytes, std::byte* to) {
    constexpr int64_t kLine = 64;
    for (int64_t i = 0; i < bytes; i += kLine)
      S::stream_line(from + i, to + i);
  }

  static void stream_fence() { S::stream_fence(); }

  static void to_bf16(const float* x, int64_t n, uint16_t* out) {
    for_vectors(n, [&](int64_t i, int64_t lanes) {
      if (lanes == kLanes) {
        S::store_bf16(out + i, S::load(x + i));
      } else {
        S::store_bf16_first(out + i, S::load_first(x + i, lanes), lanes);
      }
    });
  }

  static void exp(const float* x, int64_t n, float* out) {
    for_vectors(
        n, [&](int64_t i, int64_t lanes) { store(out + i, exp_of(load(x + i, lanes)), lanes); });
  }

  static void sigmoid(const float* x, int64_t n, float* out) {
    for_vectors(n, [&](int64_t i, int64_t lanes) {
      store(out + i, sigmoid_of(load(x + i, lanes)), lanes);
    });
  }

  // exp(x[i] - max) in place; their sum.
  static float exponentials(float* x, int64_t n) {
    const Float max = S::set(max_of(x, n));
    return sum_of(n, [&](int64_t i, int64_t lanes) {
      const Float e = exp_of(S::sub(load_filled(x + i, lanes, S::set(-kInfinity)), max));
      store(x + i, e, lanes);
      return e;
    });
  }

  static void softmax(float* x, int64_t n) {
    if (n == 0) return;
    const Float sum = S::set(exponentials(x, n));
    for_vectors(
        n, [&](int64_t i, int64_t lanes) { store(x + i, S::div(load(x + i, lanes), sum), lanes); });
  }

  static void rope_interleaved(float* x, const float* cosines, const float* sines, int64_t n) {
    for_vectors(n, [&](int64_t i, int64_t lanes) {
      const int64_t j = i / 2;
      store(x + i, S::rotate_pairs(load(x + i, lanes), cosines + j, sines + j, lanes / 2), lanes);
    });
  }

  static void rope_half(float* x, const float* cosines, const float* sines, int64_t n) {
    float* second = x + n / 2;
    for_vectors(n / 2, [&](int64_t i, int64_t lanes) {
      const Float a = load(x + i, lanes);
      const Float b = load(second + i, lanes);
      const Float c = load(cosines + i, lanes);
      const Float s = load(sines + i, lanes);
      store(x + i, S::fnma(b, s, S::mul(a, c)), lanes);
      store(second + i, S::fma(b, c, S::mul(a, s)), lanes);
    });
  }

  static int64_t argmax(const float* x, int64_t n, float* max) {
    Float best = S::set(-kInfinity);
    Int best_index = S::set_int(std::numeric_limits<int32_t>::max());
    Int index = S::lane_index();
    for_vectors(n, [&](int64_t i, int64_t lanes) {
      const Float v = load_filled(x + i, lanes, S::set(-kInfinity));
      const auto better = S::less(best, v);
      best = S::select(better, v, best);
      best_index = S::select(better, index, best_index);
      index = S::add(index, S::set_int(static_cast<int32_t>(kLanes)));
    });
    float values[kLanes];
    int32_t indices[kLanes];
    S::store(values, best);
    S::store_int(indices, best_index);
    int64_t winner = 0;
    for (int64_t lane = 1; lane < kLanes; ++lane) {
      const bool equal = values[lane] == values[winner];
      if (values[lane] > values[winner] || (equal && indices[lane] < indices[winner]))
        winner = lane;
    }
    // Nothing above -infinity anywhere: the first value wins.
    const int64_t found = values[winner] == -kInfinity ? 0 : indices[winner];
    *max = x[found];
    return found;
  }

  static float log_sum_exp(const float* x, int64_t n) {
    const float max = max_of(x, n);
    if (max == -kInfinity) return max;
    const Float shift = S::set(max);
    const float sum = sum_of(n, [&](int64_t i, int64_t lanes) {
      return exp_of(S::sub(load_filled(x + i, lanes, S::set(-kInfinity)), shift));
    });
    return max + scalar_log(sum);
  }
};

}  // namespace
}  // namespace wideep::math
