#include "math/attention.h"
#include "math/formats.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace wideep::math {
namespace {

// One chunk and kv head with the cache decoded: keys and values of positions [0, num_positions).
struct Decoded {
  std::vector<double> keys;    // [num_positions][key_width]
  std::vector<double> values;  // [num_positions][value_width]
};

void decode(CacheFormat format, const std::byte* from, int64_t count, std::vector<double>& out) {
  for (int64_t i = 0; i < count; ++i) {
    float value = 0;
    uint16_t bits = 0;
    if (format == CacheFormat::kF32) {
      std::memcpy(&value, from + i * 4, 4);
    } else {
      std::memcpy(&bits, from + i * 2, 2);
      value = bf16_to_f32(bits);
    }
    out.push_back(static_cast<double>(value));
  }
}

Decoded decode_cache(const AttentionShape& shape,
                     int64_t block_tokens,
                     const AttentionChunk& chunk,
                     int64_t kv_head) {
  const int64_t value_bytes = cache_value_bytes(shape.format);
  Decoded cache;
  for (int64_t position = 0; position < chunk.position + chunk.count; ++position) {
    const std::byte* row = chunk.blocks[static_cast<size_t>(position / block_tokens)] +
                           position % block_tokens * shape.token_values * value_bytes;
    const std::byte* key = row + kv_head * shape.key_width * value_bytes;
    const std::byte* value = row + (shape.value_offset + kv_head * shape.value_width) * value_bytes;
    decode(shape.format, key, shape.key_width, cache.keys);
    decode(shape.format, value, shape.value_width, cache.values);
  }
  return cache;
}

double dot(const float* q, const double* key, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i)
    sum += static_cast<double>(q[i]) * key[i];
  return sum;
}

// One query row: softmax over the first `visible` positions, then the weighted mean of the values.
void attend(const AttentionShape& shape,
            const Decoded& cache,
            int64_t visible,
            const float* q,
            float* out) {
  std::vector<double> weights;
  for (int64_t position = 0; position < visible; ++position) {
    const double* key = cache.keys.data() + position * shape.key_width;
    weights.push_back(dot(q, key, shape.key_width) * static_cast<double>(shape.scale));
  }
  const double max = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& weight : weights) {
    weight = std::exp(weight - max);
    sum += weight;
  }
  std::vector<double> mean(static_cast<size_t>(shape.value_width));
  for (int64_t position = 0; position < visible; ++position) {
    const double* value = cache.values.data() + position * shape.value_width;
    for (size_t i = 0; i < mean.size(); ++i)
      mean[i] += weights[static_cast<size_t>(position)] / sum * value[i];
  }
  std::ranges::transform(mean, out, [](double v) { return static_cast<float>(v); });
}

}  // namespace

void reference_attention(const AttentionShape& shape,
                         int64_t block_tokens,
                         std::span<const AttentionChunk> chunks) {
  for (const AttentionChunk& chunk : chunks) {
    for (int64_t kv_head = 0; kv_head < shape.num_kv_heads; ++kv_head) {
      const Decoded cache = decode_cache(shape, block_tokens, chunk, kv_head);
      for (int64_t query = 0; query < chunk.count; ++query) {
        for (int64_t h = 0; h < shape.heads_per_kv; ++h) {
          const int64_t row = query * shape.num_heads() + kv_head * shape.heads_per_kv + h;
          attend(shape, cache, chunk.position + query + 1, chunk.q + row * shape.key_width,
                 chunk.out + row * shape.value_width);
        }
      }
    }
  }
}

}  // namespace wideep::math
