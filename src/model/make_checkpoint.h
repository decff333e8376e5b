// Random checkpoints of given shapes, so that speed can be measured without downloads. Weights are
// normal with the variance that keeps activations at unit scale; values depend on the seed and the
// tensor's name alone, not on how the shards are cut.
#pragma once

#include "base/result.h"
#include "model/config.h"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::model {

struct MakeCheckpointOptions {
  std::string shape;   // one of checkpoint_shapes(), or the path of a config.json (ends so)
  std::string folder;  // created; files of the same names are replaced
  uint64_t seed = 1;
  bool fp8 = false;         // linear weights as F8_E4M3 with 128 x 128 block scales, else BF16
  int64_t num_layers = 0;   // 0: the shape's own
  int64_t num_experts = 0;  // 0: the shape's own
  int64_t shard_bytes_max = int64_t{2} << 30;
  std::function<void(int64_t bytes_done, int64_t bytes_total)> progress;
};

// Small ones of each architecture ("tiny", "tiny-v2", "tiny-qwen3"), "ds2" (docs/benchmarks.md)
// and models as they are ("v2-lite", "qwen3-30b-a3b", "r1").
std::vector<std::string_view> checkpoint_shapes();

// The config.json of a shape, with the options' changes.
Result<std::string> checkpoint_config(const MakeCheckpointOptions& options);

Status make_checkpoint(const MakeCheckpointOptions& options);

}  // namespace wideep::model
