#include "math/attention.h"
#include "math/expanded_attention.h"
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

template <typename T>
double dot(const T* q, const double* key, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i)
    sum += static_cast<double>(q[i]) * key[i];
  return sum;
}

std::vector<double> decode_matrix(const PackedMatrix& w) {
  std::vector<double> values;
  for (int64_t n = 0; n < w.n; ++n) {
    for (int64_t k = 0; k < w.k; ++k)
      values.push_back(static_cast<double>(unpack_value(w, n, k)));
  }
  return values;
}

// Keys and values of one head of a chunk, expanded from the latents.
Decoded expand_cache(const ExpandedShape& shape,
                     const PackedMatrix& keys,
                     const PackedMatrix& values,
                     int64_t block_tokens,
                     const AttentionChunk& chunk) {
  const std::vector<double> w_uk = decode_matrix(keys);
  const std::vector<double> w_uv = decode_matrix(values);
  const int64_t row_bytes = shape.token_values * cache_value_bytes(shape.format);
  Decoded cache;
  std::vector<double> row;
  for (int64_t position = 0; position < chunk.position + chunk.count; ++position) {
    row.clear();
    decode(shape.format,
           chunk.blocks[static_cast<size_t>(position / block_tokens)] +
               position % block_tokens * row_bytes,
           shape.latent_width + shape.rope_width, row);
    for (int64_t i = 0; i < shape.nope_width; ++i)
      cache.keys.push_back(
          dot(w_uk.data() + i * shape.latent_width, row.data(), shape.latent_width));
    cache.keys.insert(cache.keys.end(), row.begin() + shape.latent_width, row.end());
    for (int64_t i = 0; i < shape.value_width; ++i)
      cache.values.push_back(
          dot(w_uv.data() + i * shape.latent_width, row.data(), shape.latent_width));
  }
  return cache;
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

void reference_expanded_attention(const ExpandedShape& shape,
                                  const ExpansionWeights& weights,
                                  int64_t block_tokens,
                                  std::span<const AttentionChunk> chunks) {
  AttentionShape head_shape;
  head_shape.key_width = shape.key_width();
  head_shape.value_width = shape.value_width;
  head_shape.scale = shape.scale;
  for (const AttentionChunk& chunk : chunks) {
    for (int64_t head = 0; head < shape.num_heads; ++head) {
      const auto h = static_cast<size_t>(head);
      const Decoded cache =
          expand_cache(shape, weights.keys[h], weights.values[h], block_tokens, chunk);
      for (int64_t query = 0; query < chunk.count; ++query) {
        const int64_t row = query * shape.num_heads + head;
        attend(head_shape, cache, chunk.position + query + 1, chunk.q + row * shape.key_width(),
               chunk.out + row * shape.value_width);
      }
    }
  }
}

}  // namespace wideep::math
