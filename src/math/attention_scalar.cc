// Attention in plain C++: one row and one position at a time, the shape of the fast levels without
// their tricks.
#include "math/attention_kernels.h"
#include "math/formats.h"
#include "math/polynomials.h"

#include <algorithm>
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

int64_t value_bytes(const AttentionShape&) {
  return 0;
}

int64_t work_bytes(const AttentionShape&) {
  return kAttentionPartition * 4;
}

// [row][key_width], rounded to the precision of the cache.
void pack_queries(const AttentionShape& shape, std::span<const float* const> rows, std::byte* out) {
  auto* packed = reinterpret_cast<float*>(out);
  for (const float* row : rows) {
    for (int64_t i = 0; i < shape.key_width; ++i)
      *packed++ = round_to(shape.format, row[i]);
  }
}

void pack_values(const AttentionShape&, const CachedPartition&, std::byte*) {}

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

void attend(const AttentionShape& shape,
            const CachedPartition& cached,
            std::span<RowTile> tiles,
            std::byte* work) {
  auto* weights = reinterpret_cast<float*>(work);
  for (RowTile& tile : tiles) {
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
      tile.max[r] = max;
      tile.sum[r] = sum;
      weigh_values(shape, cached, {weights, static_cast<size_t>(visible)},
                   tile.out[static_cast<size_t>(r)]);
    }
  }
}

void merge(const RowTile& from, int64_t value_width, RowTile& into) {
  for (int64_t r = 0; r < from.num_rows; ++r) {
    if (from.max[r] == -kInfinity && from.sum[r] == 0) continue;
    const float max = std::max(into.max[r], from.max[r]);
    const float keep = exp2_of(into.max[r] - max);
    const float add = exp2_of(from.max[r] - max);
    into.max[r] = max;
    into.sum[r] = into.sum[r] * keep + from.sum[r] * add;
    float* out = into.out[static_cast<size_t>(r)];
    const float* partial = from.out[static_cast<size_t>(r)];
    for (int64_t i = 0; i < value_width; ++i)
      out[i] = out[i] * keep + partial[i] * add;
  }
}

void finish(int64_t value_width, RowTile& tile) {
  for (int64_t r = 0; r < tile.num_rows; ++r) {
    const float inverse = 1.0F / tile.sum[r];
    float* out = tile.out[static_cast<size_t>(r)];
    // + 0 makes a negative zero positive, whatever zeros were added to it.
    for (int64_t i = 0; i < value_width; ++i)
      out[i] = out[i] * inverse + 0.0F;
  }
}

}  // namespace

const AttentionKernels& attention_kernels() {
  static constexpr AttentionKernels kKernels = {.query_bytes = query_bytes,
                                                .value_bytes = value_bytes,
                                                .work_bytes = work_bytes,
                                                .tiles_max = 1,
                                                .pack_queries = pack_queries,
                                                .pack_values = pack_values,
                                                .values_are_finite = values_are_finite,
                                                .attend = attend,
                                                .merge = merge,
                                                .finish = finish};
  return kKernels;
}

}  // namespace wideep::math::scalar
