// Everything that decides the bits of a result besides the weights and the tokens. Ranks of a
// group, the two sides of a KV hand-over and every cache look-up compare its hash; a mismatch is
// refused with both descriptions.
#pragma once

#include "base/hash.h"
#include "ep/all_to_all.h"
#include "math/attention.h"
#include "math/formats.h"
#include "math/gemm.h"
#include "math/isa.h"

#include <cstdint>
#include <optional>
#include <string>

namespace wideep::model {

// Bumped by every change of kernels or of the forward pass that changes bits.
inline constexpr int32_t kKernelRevision = 1;

// How attention reads the cache. kAbsorbed: MLA with kv_b folded into queries and outputs, for
// every token; kDirect: keys and values as cached (GQA); kByRole: MLA with keys and values expanded
// per head for tokens of the prompt, absorbed for generated ones.
enum class AttentionForm : uint8_t { kAbsorbed, kDirect, kByRole };
std::string_view name(AttentionForm form);

struct NumericConfig {
  // kF32: rows, cache, dispatch and combine in f32, for golden checks. kMixed: bf16 or int8 rows
  // with f32 sums, bf16 cache.
  math::Precision precision = math::Precision::kMixed;
  math::WeightFormat expert_weights = math::WeightFormat::kBf16;
  // Of the linears outside the experts; none: each as the checkpoint stores it.
  std::optional<math::WeightFormat> linear_weights;
  // Rows on their way to the experts. By default what the expert kernels multiply (bf16 or int8):
  // the rows are rounded to that anyway, so the wire costs no accuracy.
  math::RowFormat dispatch_format = math::RowFormat::kBf16;
  // Rows on their way home. bf16 by default in kMixed: half the bytes of f32 for an error of 2^-9
  // of each addend, the same as the rounding of the rows themselves; f32 by option.
  math::RowFormat combine_format = math::RowFormat::kBf16;
  math::CacheFormat cache_format = math::CacheFormat::kBf16;
  AttentionForm attention_form = AttentionForm::kAbsorbed;
  math::Isa isa = math::Isa::kScalar;
  int32_t kernel_revision = kKernelRevision;

  bool operator==(const NumericConfig&) const = default;

  ep::RowFormats row_formats() const {
    return {dispatch_format, math::input_format(expert_weights, precision), combine_format};
  }

  // "precision=mixed experts=bf16 linears=stored dispatch=bf16 …"
  std::string describe() const;
  // SHA-256 of describe().
  Digest hash() const;
};

}  // namespace wideep::model
