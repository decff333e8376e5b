// From a checkpoint folder to a Model that can run.
#pragma once

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/decoder_model.h"
#include "model/weights.h"

#include <memory>
#include <optional>
#include <string>

namespace wideep::model {

struct LoadOptions {
  WeightOptions weights;
  // Formats of rows on their way; none: what suits the weights (numeric_config.h).
  std::optional<math::RowFormat> dispatch_format;
  std::optional<math::RowFormat> combine_format;
  std::optional<math::Isa> isa;  // none: the highest of this machine
  int64_t rows_max = 512;
  int64_t expert_rows_max = 0;
  int64_t block_tokens = 64;
};

// The numbers that a model loaded with `options` computes with; known without its weights.
Result<NumericConfig> resolve_numeric(const Checkpoint& checkpoint, const LoadOptions& options);

// The model borrows the pool. `checkpoint` has been opened with the same draft option.
Result<std::unique_ptr<DecoderModel>> load_model(const Checkpoint& checkpoint,
                                                 ThreadPool& pool,
                                                 const LoadOptions& options);
Result<std::unique_ptr<DecoderModel>> load_model(const std::string& folder,
                                                 ThreadPool& pool,
                                                 const LoadOptions& options);

}  // namespace wideep::model
