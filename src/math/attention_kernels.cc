#include "math/attention_kernels.h"

#include "base/check.h"

namespace wideep::math {
namespace scalar {
const AttentionKernels& attention_kernels();
}  // namespace scalar

namespace avx2 {
const AttentionKernels& attention_kernels();
}  // namespace avx2

namespace avx512 {
const AttentionKernels& attention_kernels();
}  // namespace avx512

namespace avx512bf16 {
const AttentionKernels& attention_kernels();
}  // namespace avx512bf16

namespace amx {
const AttentionKernels& attention_kernels();
}  // namespace amx

void check_chunks(std::span<const AttentionChunk> chunks,
                  int64_t block_tokens,
                  int64_t queries_max) {
  int64_t num_queries = 0;
  for (const AttentionChunk& chunk : chunks) {
    WD_CHECK(chunk.count > 0);
    WD_CHECK(chunk.position >= 0);
    WD_CHECK(std::ssize(chunk.blocks) * block_tokens >= chunk.position + chunk.count);
    num_queries += chunk.count;
  }
  WD_CHECK(num_queries <= queries_max);
}

const AttentionKernels& attention_kernels(Isa isa, const AttentionShape& shape) {
  WD_CHECK(is_supported(isa));
  if (isa == Isa::kScalar) return scalar::attention_kernels();
  if (isa == Isa::kAvx2) return avx2::attention_kernels();
  const bool has_pairs = shape.format == CacheFormat::kBf16 && shape.key_width % 2 == 0;
  if (isa == Isa::kAvx512 || !has_pairs) return avx512::attention_kernels();
  if (isa == Isa::kAvx512Bf16 || shape.key_width % 32 != 0) return avx512bf16::attention_kernels();
  return amx::attention_kernels();
}

}  // namespace wideep::math
