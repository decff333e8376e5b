// What all levels of attention share: softmax down the lanes of a row tile, merging, finishing.
// `S` is the Simd of a level; the sixteen rows of a tile are 16 / S::kLanes vectors.
#pragma once

#include "math/attention_kernels.h"
#include "math/lanes-inl.h"
#include "math/polynomials.h"

#include <cstdint>
#include <limits>

namespace wideep::math {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

template <typename S>
struct AttentionSoftmax : Lanes<S> {
  using typename Lanes<S>::Float;
  using Lanes<S>::kLanes, Lanes<S>::for_vectors, Lanes<S>::load, Lanes<S>::store;
  using Int = typename S::Int;

  // 2^y for y <= 0 (a rounding above is fine); at least 2^-126: no denormal is ever multiplied.
  static Float exp2_of(Float y) {
    const Float magic = S::set(0x1.8p+23F);
    const Float clamped = S::max(S::set(-126.0F), y);  // NaN stays
    const Float shifted = S::add(clamped, magic);      // rounds to an integer
    const Float f = S::sub(clamped, S::sub(shifted, magic));
    Float p = S::set(kExp2Polynomial[4]);
    for (int i = 3; i >= 0; --i)
      p = S::fma(p, f, S::set(kExp2Polynomial[static_cast<size_t>(i)]));
    return S::shift_exponent(S::fma(p, f, S::set(1.0F)), shifted);
  }

  // The positions that all rows see, and those that any row sees: rows are in the order of their
  // queries.
  static int64_t seen_by_all(const RowTile& tile) { return tile.visible[0]; }

  static int64_t seen_by_any(const RowTile& tile) { return tile.visible[tile.num_rows - 1]; }

  // Of one partition.
  struct Sums {
    alignas(64) float max[kRowTile];
    alignas(64) float sum[kRowTile];
  };

  // Turns scores [position][16] of one tile into weights, and gives their max and sum. Calls
  // put(t, vector, weights of position t, weights of t + 1) for even t below seen_by_any, in
  // ascending order for each vector of rows. The sum of position t is in accumulator t % 4.
  template <typename Put>
  static void softmax(
      float scale, const float* scores, const RowTile& tile, Sums& result, Put put) {
    const int64_t all = seen_by_all(tile);
    const int64_t any = seen_by_any(tile);
    const Float factor = S::set(scale * kLog2E);
    for (int64_t v = 0; v * kLanes < kRowTile; ++v) {
      const float* s = scores + v * kLanes;
      const Int visible = S::load_int(tile.visible.data() + v * kLanes);
      const Float max = S::mul(max_of(s, all, any, visible), factor);
      const Float shift = S::sub(S::zero(), max);
      const auto weight = [&](int64_t t) {
        return exp2_of(S::fma(S::load(s + t * kRowTile), factor, shift));
      };
      const auto weight_if_seen = [&](int64_t t) {
        const auto seen = S::less(S::set_int(static_cast<int32_t>(t)), visible);
        return S::select(seen, weight(t), S::zero());
      };
      Float sums[4] = {S::zero(), S::zero(), S::zero(), S::zero()};
      int64_t t = 0;
      for (; t + 4 <= all; t += 4) {
        for (int i = 0; i < 4; i += 2) {
          const Float a = weight(t + i);
          const Float b = weight(t + i + 1);
          sums[i] = S::add(sums[i], a);
          sums[i + 1] = S::add(sums[i + 1], b);
          put(t + i, v, a, b);
        }
      }
      for (; t < any; t += 2) {
        const Float a = weight_if_seen(t);
        const Float b = weight_if_seen(t + 1);
        const int64_t i = t % 4;
        sums[i] = S::add(sums[i], a);
        sums[i + 1] = S::add(sums[i + 1], b);
        put(t, v, a, b);
      }
      S::store(result.max + v * kLanes, max);
      S::store(result.sum + v * kLanes, S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
    }
  }

  static Float max_of(const float* s, int64_t all, int64_t any, Int visible) {
    const Float lowest = S::set(kMinusInfinity);
    Float max[4] = {lowest, lowest, lowest, lowest};
    int64_t t = 0;
    for (; t + 4 <= all; t += 4) {
      for (int i = 0; i < 4; ++i)
        max[i] = S::max(S::load(s + (t + i) * kRowTile), max[i]);
    }
    for (; t < any; ++t) {
      const auto seen = S::less(S::set_int(static_cast<int32_t>(t)), visible);
      max[0] = S::max(S::select(seen, S::load(s + t * kRowTile), lowest), max[0]);
    }
    return S::max(S::max(max[0], max[1]), S::max(max[2], max[3]));
  }

  // What a row's results so far, and a partition's, are multiplied by; and 1 / sum at the end.
  struct Factors {
    alignas(64) float keep[kRowTile];
    alignas(64) float add[kRowTile];
    alignas(64) float inverse[kRowTile];
  };

  // Takes max and sum of a partition into the tile's.
  static void take_sums(
      const float* max, const float* sum, PartitionTurn turn, RowTile& into, Factors& factors) {
    alignas(64) float merged[kRowTile];
    for (int64_t v = 0; v < kRowTile; v += kLanes) {
      const Float b = S::load(max + v);
      const Float a = turn.first ? b : S::load(into.max + v);
      const Float m = S::max(a, b);
      S::store(merged + v, m);
      S::store(factors.keep + v, exp2_of(S::sub(a, m)));
      S::store(factors.add + v, exp2_of(S::sub(b, m)));
    }
    for (int64_t r = 0; r < into.num_rows; ++r) {
      const bool saw_nothing = max[r] == kMinusInfinity && sum[r] == 0;
      if (turn.first) {
        into.max[r] = max[r];
        into.sum[r] = sum[r];
      } else if (saw_nothing) {
        factors.keep[r] = 1;
        factors.add[r] = 0;
      } else {
        into.max[r] = merged[r];
        into.sum[r] = into.sum[r] * factors.keep[r] + sum[r] * factors.add[r];
      }
      factors.inverse[r] = 1.0F / into.sum[r];
    }
  }

  // Takes a partition's values of one row into `out`.
  static Float take_values(
      Float values, Float out, const Factors& f, int64_t r, PartitionTurn turn) {
    if (!turn.first) values = S::fma(values, S::set(f.add[r]), S::mul(out, S::set(f.keep[r])));
    // + 0 makes a negative zero positive, whatever zeros were added to it.
    return turn.last ? S::fma(values, S::set(f.inverse[r]), S::zero()) : values;
  }

  static void merge(const RowTile& from, int64_t value_width, PartitionTurn turn, RowTile& into) {
    Factors factors;
    take_sums(from.max, from.sum, turn, into, factors);
    for (int64_t r = 0; r < from.num_rows; ++r) {
      const float* partial = from.out[static_cast<size_t>(r)];
      float* out = into.out[static_cast<size_t>(r)];
      for_vectors(value_width, [&](int64_t i, int64_t n) {
        const Float before = turn.first ? S::zero() : load(out + i, n);
        store(out + i, take_values(load(partial + i, n), before, factors, r, turn), n);
      });
    }
  }
};

}  // namespace
}  // namespace wideep::math
