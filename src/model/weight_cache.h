// The packed weights of a rank in one file, so that a second start copies instead of packing. The
// byte table is in docs/formats/checkpoint-cache.md.
//
// The file's name is its key: what the checkpoint's files are (sizes, modification times, header
// hashes), which experts this rank holds, and every format. The content is checked, item by item,
// by its checksums; whatever is wrong with it, the answer is to pack again.
#pragma once

#include "base/hash.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "model/weight_plan.h"

#include <functional>
#include <string>

namespace wideep::model {

struct WeightCacheFile {
  std::string path;
  Digest key{};
};

// The file, there or not, of what load_weights(checkpoint, options) would pack.
Result<WeightCacheFile> weight_cache_file(const Checkpoint& checkpoint,
                                          const WeightOptions& options,
                                          const WeightPlan& plan);
// Its bytes.
int64_t weight_cache_bytes(const WeightPlan& plan);

// Bytes read or written, in all. An error ends the reading or writing with it.
using CacheProgress = std::function<Status(int64_t bytes, int64_t total)>;

// Fills the arenas of `weights` from the file. kNotFound if there is none; kDataLoss if it is
// broken (the arenas are garbage then).
Status read_weight_cache(const WeightCacheFile& cache,
                         const WeightPlan& plan,
                         ModelWeights& weights,
                         ThreadPool& pool,
                         const CacheProgress& progress);

// Writes the arenas beside the file, whose folder exists, and renames when all is on disk.
// kExhausted if the disk has no room for it.
Status write_weight_cache(const WeightCacheFile& cache,
                          const WeightPlan& plan,
                          ModelWeights& weights,
                          ThreadPool& pool,
                          const CacheProgress& progress);

}  // namespace wideep::model
