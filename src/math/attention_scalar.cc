// Attention in plain C++: one row and one position at a time, the shape of the fast levels without
// their tricks.
#include "math/attention_kernels.h"
#include "math/formats.h"
#include "math/polynomials.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace wideep::math::scalar {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// 2^x for x <= 0.
float exp2_of(float x) {
  if (x < -126) return 0;
  if (std::isnan(x)) return x;
  const float n = std::floor(x + 0.5F);
  const float f = x - n;
  float p = kExp2Polynomial.back();
  for (size_t i = kExp2Polynomial.size() - 1; i-- > 0;)
    p = p * f + kExp2Polynomial[i];
  const float power = std::bit_cast<float>(static_cast<uint32_t>(static_cast<int>(n) + 127) << 23);
  return (1.0F + p * f) * power;
}

float cached_value(CacheFormat format, const std::byte* row, int64_t index) {
  if (format == CacheFormat::kF32) {
    float value = 0;
    std::memcpy(&value, row + index * 4, 4);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, row + index * 2, 2);
  return bf16_to_f32(bits);
}

float round_to(CacheFormat format, float value) {
  return format == CacheFormat::kF32 ? value : bf16_to_f32(f32_to_bf16(value));
}

int64_t query_bytes(const AttentionShape& shape) {
  return kRowTile * shape.key_width * 4;
}

int64_t work_bytes(const AttentionShape& shape) {
  return (kAttentionPartition + kRowTile * shape.value_width) * 4;
}

// [row][key_width], rounded to the precision of the cache.
void pack_queries(const AttentionShape& shape, std::span<const float* const> rows, std::byte* out) {
  auto* packed = reinterpret_cast<float*>(out);
  for (const float* row : rows) {
    for (int64_t i = 0; i < shape.key_width; ++i)
      *packed++ = round_to(shape.format, row[i]);
  }
}

bool values_are_finite(const AttentionShape& shape,
                       const CachedPartition& cached,
                       int64_t begin,
                       int64_t end) {
  for (int64_t position = begin; position < end; ++position) {
    const std::byte* value = cached.row(position) + cached.value_bytes;
    for (int64_t i = 0; i < shape.value_width; ++i) {
      if (!(std::abs(cached_value(shape.format, value, i)) < kInfinity)) return false;
    }
  }
  return true;
}

// One row: weights[0, visible), then the weighted values.
void attend_row(const AttentionShape& shape,
                const CachedPartition& cached,
                const float* q,
                int64_t visible,
                float* weights) {
  for (int64_t position = 0; position < visible; ++position) {
    const std::byte* key = cached.row(position) + cached.key_bytes;
    float score = 0;
    for (int64_t i = 0; i < shape.key_width; ++i)
      score += q[i] * cached_value(shape.format, key, i);
    weights[position] = score * (shape.scale * kLog2E);
  }
}

void weigh_values(const AttentionShape& shape,
                  const CachedPartition& cached,
                  std::span<const float> weights,
                  float* out) {
  std::fill_n(out, shape.value_width, 0.0F);
  for (int64_t position = 0; position < std::ssize(weights); ++position) {
    const float weight = round_to(shape.format, weights[static_cast<size_t>(position)]);
    const std::byte* value = cached.row(position) + cached.value_bytes;
    for (int64_t i = 0; i < shape.value_width; ++i)
      out[i] += weight * cached_value(shape.format, value, i);
  }
}

void merge(const RowTile& from, int64_t value_width, PartitionTurn turn, RowTile& into) {
  for (int64_t r = 0; r < from.num_rows; ++r) {
    const bool saw_nothing = from.max[r] == -kInfinity && from.sum[r] == 0;
    const float max = turn.first ? from.max[r] : std::max(into.max[r], from.max[r]);
    const float keep = turn.first || saw_nothing ? 1 : exp2_of(into.max[r] - max);
    const float add = saw_nothing ? 0 : exp2_of(from.max[r] - max);
    into.max[r] = max;
    into.sum[r] = turn.first ? from.sum[r] : into.sum[r] * keep + from.sum[r] * add;
    const float inverse = 1.0F / into.sum[r];
    float* out = into.out[static_cast<size_t>(r)];
    const float* partial = from.out[static_cast<size_t>(r)];
    for (int64_t i = 0; i < value_width; ++i) {
      const float value = turn.first ? partial[i] : out[i] * keep + partial[i] * add;
      // + 0 makes a negative zero positive, whatever zeros were added to it.
      out[i] = turn.last ? value * inverse + 0.0F : value;
    }
  }
}

void attend(const AttentionShape& shape,
            const CachedPartition& cached,
            std::span<RowTile> tiles,
            PartitionTurn turn,
            std::byte* work) {
  auto* weights = reinterpret_cast<float*>(work);
  for (RowTile& tile : tiles) {
    std::array<float, kRowTile> maxima{};
    std::array<float, kRowTile> sums{};
    RowTile partial = tile;
    partial.max = maxima.data();
    partial.sum = sums.data();
    for (int64_t r = 0; r < tile.num_rows; ++r) {
      const int64_t visible = tile.visible[static_cast<size_t>(r)];
      const float* q = reinterpret_cast<const float*>(tile.queries) + r * shape.key_width;
      attend_row(shape, cached, q, visible, weights);
      float max = -kInfinity;
      for (int64_t position = 0; position < visible; ++position)
        max = std::max(max, weights[position]);
      float sum = 0;
      for (int64_t position = 0; position < visible; ++position) {
        weights[position] = exp2_of(weights[position] - max);
        sum += weights[position];
      }
      partial.max[r] = max;
      partial.sum[r] = sum;
      partial.out[static_cast<size_t>(r)] = weights + kAttentionPartition + r * shape.value_width;
      weigh_values(shape, cached, {weights, static_cast<size_t>(visible)},
                   partial.out[static_cast<size_t>(r)]);
    }
    merge(partial, shape.value_width, turn, tile);
  }
}

}  // namespace

const AttentionKernels& attention_kernels() {
  static constexpr AttentionKernels kKernels = {.query_bytes = query_bytes,
                                                .work_bytes = work_bytes,
                                                .tiles_max = 1,
                                                .pack_queries = pack_queries,
                                                .values_are_finite = values_are_finite,
                                                .attend = attend,
                                                .merge = merge};
  return kKernels;
}

}  // namespace wideep::math::scalar
