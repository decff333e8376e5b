// A model's weights in memory, packed for the kernels: views for the layers, two arenas that own
// the bytes. Both arenas are anonymous memory (spec: the step never reads a mapped file).
//
// An expert is a blob: {header, packed gate_up, packed down}, position-independent, the same in its
// slot, in the cache file and on a wire. Thread: read-only once loaded.
#pragma once

#include "base/file.h"
#include "base/memory.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "math/ffn.h"
#include "math/gemm.h"
#include "model/checkpoint.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace wideep::model {

// Projections that share an input are one matrix; each part begins at a panel, so that the columns
// between the parts are padding.
struct MlaWeights {
  math::PackedMatrix qkv_a;  // q_a (or q) at column 0, kv_a at kv_column
  int64_t kv_column = 0;
  std::span<const float> q_a_norm;   // [q_lora_rank], with q_lora_rank only
  math::PackedMatrix q_b;            // with q_lora_rank only
  std::span<const float> kv_a_norm;  // [kv_lora_rank]
  // Per head.
  std::vector<math::PackedMatrix> w_uk_t;  // W_UK^T, n = kv_lora_rank, k = nope
  std::vector<math::PackedMatrix> w_uv;    // n = v_head_dim, k = kv_lora_rank
  std::vector<math::PackedMatrix> w_uk;    // n = nope, k = kv_lora_rank; with expanded prompts only
  math::PackedMatrix o;
};

struct GqaWeights {
  math::PackedMatrix qkv;  // q at column 0, k and v at theirs
  int64_t k_column = 0;
  int64_t v_column = 0;
  std::span<const float> q_norm;  // [head_dim]
  std::span<const float> k_norm;
  math::PackedMatrix o;
};

struct MoeWeights {
  math::PackedMatrix gate;      // [experts, hidden], exact
  std::span<const float> bias;  // [experts], with a correction bias only
  std::optional<math::FfnWeights> shared;
  std::vector<math::FfnWeights> slots;  // experts on this rank
};

struct LayerWeights {
  std::span<const float> input_norm;
  std::span<const float> post_attention_norm;
  MlaWeights mla;  // one of the two
  GqaWeights gqa;
  math::FfnWeights dense;  // one of the two
  MoeWeights moe;
};

struct DraftWeights {
  std::span<const float> embedding_norm;  // enorm
  std::span<const float> hidden_norm;     // hnorm
  math::PackedMatrix eh_proj;             // [hidden, 2 x hidden], the embedding's half first
  std::span<const float> head_norm;       // shared_head.norm
};

// One row per token, as f32 or bf16 (never rounded).
struct EmbeddingWeights {
  math::WeightFormat format = math::WeightFormat::kBf16;
  std::span<const std::byte> rows;
};

// Stands in front of an expert's packed bytes.
struct ExpertBlobHeader {
  uint64_t magic = 0;
  int32_t layer = 0;
  int32_t expert = 0;
  uint64_t layout = 0;    // hash of formats and shapes
  uint64_t checksum = 0;  // xxh64 of what follows
  int64_t bytes = 0;      // of what follows
  uint8_t reserved[24] = {};
};

static_assert(sizeof(ExpertBlobHeader) == 64);

struct LoadProgress {
  enum class Phase : uint8_t { kPack, kReadCache, kWriteCache };
  Phase phase = Phase::kPack;
  int64_t bytes_done = 0;  // of the files read or written
  int64_t bytes_total = 0;
  int64_t tensors_done = 0;
  int64_t tensors_total = 0;
};

struct WeightOptions {
  math::Precision precision = math::Precision::kMixed;
  // Quantise (or widen) on load; none: as the checkpoint stores them, f16 as bf16 in kMixed.
  std::optional<math::WeightFormat> expert_format;
  std::optional<math::WeightFormat> linear_format;
  bool draft = false;
  bool expanded_prompts = false;  // MLA: W_UK as it is too, for prompts in the expanded form
  // Which expert each slot of this rank holds: slots[layer][slot]; empty: every expert, in order.
  std::vector<std::vector<ExpertId>> slots;
  std::string cache_dir;          // of packed weights; empty: no cache
  int64_t cache_bytes_max = 0;    // of all files in it; 0: half of the disk
  int64_t slice_bytes = 4 << 20;  // of a matrix that a thread reads and packs at once
  // Called by the threads that load, one at a time. An error ends the packing with it.
  std::function<Status(const LoadProgress&)> progress;
};

struct ModelWeights {
  EmbeddingWeights embedding;
  std::vector<LayerWeights> layers;  // the draft layer last
  DraftWeights draft;
  std::span<const float> final_norm;
  math::PackedMatrix lm_head;
  math::WeightFormat expert_format = math::WeightFormat::kBf16;

  AlignedBuffer dense_arena;
  AlignedBuffer expert_arena;
  int64_t expert_blob_bytes = 0;
  bool from_cache = false;
  std::optional<File> cache_file;  // held so that nobody removes it while this process lives
  int64_t checkpoint_bytes_read = 0;
};

// The format that the experts of `checkpoint` have in memory under these options.
Result<math::WeightFormat> resolve_expert_format(const Checkpoint& checkpoint,
                                                 const WeightOptions& options);

// Reads what this rank needs, in the order of the files, packs it on all threads of the pool; or
// reads the packed cache of an earlier start. A cache that cannot be read or written is a warning.
Result<ModelWeights> load_weights(const Checkpoint& checkpoint,
                                  const WeightOptions& options,
                                  ThreadPool& pool);

}  // namespace wideep::model
