#include "engine/engine.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/rounding.h"
#include "engine/engine_impl.h"

#include <algorithm>
#include <utility>

namespace wideep::engine {
namespace {

constexpr int64_t kBlockTokensStep = 16;  // what the attention kernels are cut for
constexpr int64_t kBlockTokensMax = 512;
constexpr int64_t kDefaultCacheBytes = int64_t{4} << 30;  // several ranks may share a host

// The draft layer's rows belong to the cache only if the model was loaded with it.
Status check_draft(const model::ModelConfig& config, const kv::KvLayout& layout) {
  int64_t num_layers = 0;
  for (const kv::CacheGroup& group : layout.groups)
    num_layers += group.num_layers;
  if (config.num_mtp_layers > 0 && num_layers > config.num_layers) return {};
  return invalid_argument("speculation needs a model with a draft layer, loaded with it");
}

int64_t blocks_for(int64_t num_tokens, const EngineOptions& options) {
  return divide_up(num_tokens, options.block_size);
}

// As many blocks as asked for; else what fits into the bytes; else what all sequences could fill,
// but no more than a quarter of the free memory and kDefaultCacheBytes, and of all engines on this
// host together, which look at the same free memory, no more than half of it.
int64_t choose_num_blocks(const kv::KvLayout& layout, const EngineOptions& options) {
  if (options.num_kv_blocks > 0) return options.num_kv_blocks;
  const int64_t block_bytes = std::max<int64_t>(1, layout.token_bytes() * options.block_size);
  if (options.kv_cache_bytes > 0) return options.kv_cache_bytes / block_bytes;
  const auto free_bytes = static_cast<int64_t>(available_memory_bytes());
  const int64_t share = free_bytes / std::max<int64_t>(4, 2 * options.engines_on_host);
  const int64_t in_memory = std::min(share, kDefaultCacheBytes) / block_bytes;
  return std::min(in_memory, options.max_num_seqs * blocks_for(options.max_model_len, options));
}

}  // namespace

Status check_without_model(const EngineOptions& options) {
  if (options.block_size < kBlockTokensStep || options.block_size > kBlockTokensMax ||
      options.block_size % kBlockTokensStep != 0)
    return invalid_argument("block size {}: allowed are multiples of {} up to {}",
                            options.block_size, kBlockTokensStep, kBlockTokensMax);
  if (options.max_num_seqs < 1) return invalid_argument("max_num_seqs is {}", options.max_num_seqs);
  if (options.max_num_batched_tokens < options.max_num_seqs)
    return invalid_argument("max_num_batched_tokens ({}) is less than max_num_seqs ({})",
                            options.max_num_batched_tokens, options.max_num_seqs);
  if (options.max_num_queued_reqs < 1 || options.max_num_queued_tokens < 1)
    return invalid_argument("the queue has no room: {} requests, {} tokens",
                            options.max_num_queued_reqs, options.max_num_queued_tokens);
  if (options.max_model_len < 0 || options.max_model_len == 1)
    return invalid_argument("max_model_len is {}: 2 or more are expected, or 0",
                            options.max_model_len);
  if (options.kv_cache_bytes < 0 || options.num_kv_blocks < 0)
    return invalid_argument("a KV cache of {} bytes, {} blocks", options.kv_cache_bytes,
                            options.num_kv_blocks);
  if (options.num_speculative_tokens < 0 || options.num_speculative_tokens > 1)
    return invalid_argument("num_speculative_tokens is {}, allowed are 0 and 1",
                            options.num_speculative_tokens);
  return {};
}

Status check_options(const EngineOptions& options, const model::ModelConfig& config) {
  WD_TRY(check_without_model(options));
  if (options.max_model_len > config.max_positions)
    return invalid_argument("max_model_len is {}, the model has {} positions",
                            options.max_model_len, config.max_positions);
  return {};
}

Result<std::unique_ptr<Engine>> Engine::create(model::Model& model,
                                               const tokenizer::Tokenizer* tokenizer,
                                               const Clock& clock,
                                               EngineOptions options) {
  const model::ModelConfig& config = model.config();
  WD_TRY(check_options(options, config));
  const bool is_length_given = options.max_model_len > 0;
  if (!is_length_given) options.max_model_len = config.max_positions;

  kv::KvLayout layout = model.kv_layout(options.block_size);
  if (options.num_speculative_tokens > 0) WD_TRY(check_draft(config, layout));
  const bool is_size_given = options.num_kv_blocks > 0 || options.kv_cache_bytes > 0;
  options.num_kv_blocks = choose_num_blocks(layout, options);
  options.kv_cache_bytes = options.num_kv_blocks * layout.token_bytes() * options.block_size;
  if (options.leases.blocks_max == 0)
    options.leases.blocks_max = options.num_kv_blocks - options.num_kv_blocks / 4;
  if (blocks_for(options.max_model_len, options) > options.num_kv_blocks) {
    const int64_t capacity = options.num_kv_blocks * options.block_size;
    if (is_length_given || capacity < 2)
      return invalid_argument(
          "a context of {} tokens does not fit into a KV cache of {} ({} blocks)",
          options.max_model_len, capacity, options.num_kv_blocks);
    log_warning("the context is {} tokens instead of {}: that is what the KV cache holds", capacity,
                options.max_model_len);
    options.max_model_len = capacity;
  }
  WD_ASSIGN_OR_RETURN(std::unique_ptr<kv::BlockPool> pool,
                      kv::BlockPool::create(std::move(layout), options.num_kv_blocks,
                                            options.produces_kv ? kv::PoolMemory::kShared
                                                                : kv::PoolMemory::kPrivate));
  if (is_size_given) WD_TRY(pool->prefault());  // what was only guessed is taken as it is needed
  return std::make_unique<EngineImpl>(model, tokenizer, clock, options, std::move(pool));
}

}  // namespace wideep::engine
