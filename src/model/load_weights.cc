#include "base/log.h"
#include "model/cache_folder.h"
#include "model/loaders.h"
#include "model/pack_task.h"
#include "model/weight_cache.h"
#include "model/weight_plan.h"
#include "model/weights.h"

#include <algorithm>
#include <limits>
#include <mutex>

namespace wideep::model {
namespace {

Status check_options(const ModelConfig& config, const WeightOptions& options) {
  const auto is_integer = [](std::optional<math::WeightFormat> format) {
    return format == math::WeightFormat::kInt8 || format == math::WeightFormat::kInt4;
  };
  if (options.precision == math::Precision::kF32 &&
      (is_integer(options.expert_format) || is_integer(options.linear_format))) {
    return invalid_argument("int8 and int4 weights multiply int8 rows; the f32 path has none");
  }
  if (options.draft && config.num_mtp_layers == 0) {
    return invalid_argument(
        "speculation was asked for, but the model has no draft layer "
        "(num_nextn_predict_layers is 0)");
  }
  if (options.slots.empty()) return {};
  const auto num_layers = static_cast<size_t>(config.num_layers_with_draft(options.draft));
  if (options.slots.size() < num_layers) {
    return invalid_argument("a placement of {} layers for a model of {}", options.slots.size(),
                            num_layers);
  }
  for (const std::vector<ExpertId>& layer : options.slots) {
    for (const ExpertId expert : layer) {
      if (index(expert) < 0 || index(expert) >= config.num_experts()) {
        return invalid_argument("a placement names expert {}, the model has {}", index(expert),
                                config.num_experts());
      }
    }
  }
  return {};
}

// Refuses a load that the machine has no memory for, before any of it is taken.
Status check_memory(const WeightPlan& plan) {
  const int64_t wanted = plan.dense_bytes() + plan.expert_bytes();
  const auto available = static_cast<int64_t>(available_memory_bytes());
  if (wanted <= available) return {};
  return error(ErrorCode::kExhausted, "the weights take {} bytes of memory, {} are available",
               wanted, available);
}

// Runs every task on the pool; of several failures the one of the first task is returned.
class Packing {
 public:
  Packing(const WeightPlan& plan, const WeightOptions& options, ModelWeights& weights)
      : plan_(plan), options_(options), weights_(weights) {
    for (const PackTask& task : plan.tasks()) {
      progress_.bytes_total += task.source_bytes;
      progress_.tensors_total += task.num_tensors;
    }
  }

  Status run(ThreadPool& pool) {
    std::vector<Packer> packers;
    for (int loader = 0; loader < num_loaders(pool); ++loader)
      packers.emplace_back(plan_.shapes());
    const auto& tasks = plan_.tasks();
    for_each_loaded(pool, static_cast<int64_t>(tasks.size()), [&](int64_t i, int loader) {
      if (has_failed()) return;
      const PackTask& task = tasks[static_cast<size_t>(i)];
      const Status status =
          packers[static_cast<size_t>(loader)].run(task, bytes_at(weights_, task.place));
      finish(i, task, status);
    });
    weights_.checkpoint_bytes_read = progress_.bytes_done;
    return status_;
  }

 private:
  bool has_failed() {
    const std::scoped_lock lock(mutex_);
    return !status_;
  }

  void finish(int64_t i, const PackTask& task, const Status& status) {
    const std::scoped_lock lock(mutex_);
    if (!status) {
      if (i < failed_task_) status_ = status;
      failed_task_ = std::min(failed_task_, i);
      return;
    }
    progress_.bytes_done += task.source_bytes;
    progress_.tensors_done += task.num_tensors;
    if (!options_.progress) return;
    if (const Status goes_on = options_.progress(progress_); !goes_on && status_) {
      status_ = goes_on;
      failed_task_ = i;
    }
  }

  const WeightPlan& plan_;
  const WeightOptions& options_;
  ModelWeights& weights_;
  std::mutex mutex_;
  LoadProgress progress_;
  Status status_;
  int64_t failed_task_ = std::numeric_limits<int64_t>::max();
};

// An error of the caller's progress function counts as trouble with the cache: packing, which comes
// next, ends with it.
CacheProgress cache_progress(const WeightOptions& options, LoadProgress::Phase phase) {
  if (!options.progress) return nullptr;
  return [&options, phase](int64_t bytes, int64_t total) {
    return options.progress({.phase = phase, .bytes_done = bytes, .bytes_total = total});
  };
}

Status pack_all(const WeightPlan& plan,
                const WeightOptions& options,
                ModelWeights& weights,
                ThreadPool& pool) {
  return Packing(plan, options, weights).run(pool);
}

Status read_cached(const WeightCacheFile& cache,
                   const WeightPlan& plan,
                   const WeightOptions& options,
                   ModelWeights& weights,
                   ThreadPool& pool) {
  WD_ASSIGN_OR_RETURN(weights.cache_file, use_cache_file(cache.path));
  return read_weight_cache(cache, plan, weights, pool,
                           cache_progress(options, LoadProgress::Phase::kReadCache));
}

Status write_cached(const WeightCacheFile& cache,
                    const WeightPlan& plan,
                    const WeightOptions& options,
                    ModelWeights& weights,
                    ThreadPool& pool) {
  weights.cache_file.reset();  // a broken one is replaced
  WD_TRY(make_cache_room(options.cache_dir, weight_cache_bytes(plan), options.cache_bytes_max));
  WD_TRY(write_weight_cache(cache, plan, weights, pool,
                            cache_progress(options, LoadProgress::Phase::kWriteCache)));
  WD_ASSIGN_OR_RETURN(weights.cache_file, use_cache_file(cache.path));
  return {};
}

// From the cache if it has them, else packed and written there. Trouble with the cache is a
// warning.
Status fill(const Checkpoint& checkpoint,
            const WeightPlan& plan,
            const WeightOptions& options,
            ModelWeights& weights,
            ThreadPool& pool) {
  if (options.cache_dir.empty()) return pack_all(plan, options, weights, pool);
  WD_ASSIGN_OR_RETURN(const WeightCacheFile cache, weight_cache_file(checkpoint, options, plan));
  const Status cached = read_cached(cache, plan, options, weights, pool);
  weights.from_cache = cached.has_value();
  if (cached) return {};
  if (cached.error().code != ErrorCode::kNotFound) {
    log_warning("{}; packing the weights again", cached.error().message);
  }
  WD_TRY(pack_all(plan, options, weights, pool));
  const Status written = write_cached(cache, plan, options, weights, pool);
  if (!written) log_warning("{}; the next start packs again", written.error().message);
  return {};
}

}  // namespace

Result<math::WeightFormat> resolve_expert_format(const Checkpoint& checkpoint,
                                                 const WeightOptions& options) {
  if (options.expert_format) return *options.expert_format;
  const ModelConfig& config = checkpoint.config();
  math::WeightFormat format = options.linear_format.value_or(math::WeightFormat::kBf16);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (!config.is_moe(layer)) continue;
    WD_ASSIGN_OR_RETURN(const TensorSource gate,
                        checkpoint.locate({.name = expert_tensor_name(layer, 0, "gate_proj"),
                                           .rows = config.moe_intermediate_size,
                                           .cols = config.hidden_size,
                                           .layer = layer,
                                           .expert = 0}));
    return natural_format(gate.storage, options.precision);
  }
  return format;
}

Result<ModelWeights> load_weights(const Checkpoint& checkpoint,
                                  const WeightOptions& options,
                                  ThreadPool& pool) {
  WD_TRY(check_options(checkpoint.config(), options));
  ModelWeights weights;
  WD_ASSIGN_OR_RETURN(const WeightPlan plan, WeightPlan::make(checkpoint, options, weights));
  WD_TRY(check_memory(plan));
  weights.dense_arena = AlignedBuffer(static_cast<size_t>(plan.dense_bytes()));
  weights.expert_arena = AlignedBuffer(static_cast<size_t>(plan.expert_bytes()));
  WD_TRY(fill(checkpoint, plan, options, weights, pool));
  plan.resolve(weights);
  return weights;
}

}  // namespace wideep::model
