#include "model/attention.h"

#include "base/check.h"
#include "base/rounding.h"
#include "model/rope.h"

#include <algorithm>
#include <cstring>

namespace wideep::model {
namespace {

// Cached rows begin at a multiple of 64 bytes, as every row does.
int64_t cached_values(const ModelConfig& config, math::CacheFormat format) {
  const int64_t values = config.attention == AttentionKind::kMla
                             ? config.kv_lora_rank + config.qk_rope_head_dim
                             : 2 * config.num_kv_heads * config.head_dim;
  return round_up(values, 64 / math::cache_value_bytes(format));
}

math::AttentionShape attention_shape(const ModelConfig& config, math::CacheFormat format) {
  const auto scale = static_cast<float>(softmax_scale(config.rope, config.q_head_dim()));
  const int64_t token_values = cached_values(config, format);
  if (config.attention == AttentionKind::kMla) {
    return {.format = format,
            .num_kv_heads = 1,
            .heads_per_kv = config.num_heads,
            .key_width = config.kv_lora_rank + config.qk_rope_head_dim,
            .value_width = config.kv_lora_rank,
            .token_values = token_values,
            .value_offset = 0,
            .scale = scale};
  }
  return {.format = format,
          .num_kv_heads = config.num_kv_heads,
          .heads_per_kv = config.num_heads / config.num_kv_heads,
          .key_width = config.head_dim,
          .value_width = config.head_dim,
          .token_values = token_values,
          .value_offset = config.num_kv_heads * config.head_dim,
          .scale = scale};
}

math::ExpandedShape expanded_shape(const ModelConfig& config,
                                   const math::AttentionShape& absorbed) {
  return {.format = absorbed.format,
          .num_heads = config.num_heads,
          .latent_width = config.kv_lora_rank,
          .rope_width = config.qk_rope_head_dim,
          .nope_width = config.qk_nope_head_dim,
          .value_width = config.v_head_dim,
          .token_values = absorbed.token_values,
          .scale = absorbed.scale};
}

// Columns of the fused projection: its parts, each beginning at a panel.
int64_t fused_columns(const ModelConfig& config) {
  const int64_t q_rows = config.num_heads * config.q_head_dim();
  if (config.attention == AttentionKind::kMla) {
    const int64_t q = config.q_lora_rank > 0 ? config.q_lora_rank : q_rows;
    return round_up(q, math::kPanelCols) + config.kv_lora_rank + config.qk_rope_head_dim;
  }
  const int64_t kv_rows = config.num_kv_heads * config.head_dim;
  const int64_t v_column = round_up(round_up(q_rows, math::kPanelCols) + kv_rows, math::kPanelCols);
  return v_column + kv_rows;
}

// `count` values to a place in a cached row.
void write_cached(const math::Kernels& kernels,
                  math::CacheFormat format,
                  std::span<const float> values,
                  std::byte* out) {
  if (format == math::CacheFormat::kF32) {
    std::memcpy(out, values.data(), values.size_bytes());
  } else {
    kernels.to_bf16(values.data(), static_cast<int64_t>(values.size()),
                    reinterpret_cast<uint16_t*>(out));
  }
}

MatrixView<float> columns(MatrixView<float> m, int64_t begin, int64_t count) {
  return {m.data + begin, m.rows, count, m.stride};
}

}  // namespace

kv::CacheGroup cache_group(const ModelConfig& config,
                           math::CacheFormat format,
                           int64_t num_layers,
                           int64_t block_tokens) {
  return {.name = config.attention == AttentionKind::kMla ? "mla" : "gqa",
          .num_layers = num_layers,
          .token_bytes = cached_values(config, format) * math::cache_value_bytes(format),
          .block_tokens = block_tokens};
}

AttentionScratch::AttentionScratch(const Compute& compute_in,
                                   Projector& projector_in,
                                   const ModelConfig& config_in,
                                   const NumericConfig& numeric,
                                   int64_t block_tokens)
    : compute(compute_in),
      projector(projector_in),
      config(config_in),
      format(numeric.cache_format),
      shape(attention_shape(config_in, format)),
      kernel(compute_in.pool, compute_in.kernels, shape, block_tokens, compute_in.rows_max),
      heads(compute_in, std::max(config_in.qk_nope_head_dim, shape.value_width)),
      fused(compute_in.rows_max, fused_columns(config_in)),
      q(compute_in.rows_max, config_in.num_heads * config_in.q_head_dim()),
      queries(compute_in.rows_max, config_in.num_heads * shape.key_width),
      latent(compute_in.rows_max, config_in.num_heads * shape.value_width),
      values(compute_in.rows_max, config_in.num_heads * config_in.v_head_dim) {
  if (numeric.attention_form == AttentionForm::kByRole) {
    expanded.emplace(compute.pool, compute.kernels, expanded_shape(config, shape), block_tokens,
                     compute.rows_max);
  }
}

// q = q_b rms(q_a h), t = kv_a h; the cache gets [rms(t[:rank]), rope(t[rank:])]. With W_UK and
// W_UV the two halves of a head's kv_b:
//   absorbed: queries[head] = [W_UK^T q_nope, rope(q_pe)], o[head] = W_UV (attention over latents)
//   expanded: queries[head] = [q_nope, rope(q_pe)],        o[head] = attention over [W_UK c, k_pe]
//                                                                    and W_UV c
void MlaAttention::forward(Step& step, MatrixView<const float> h, MatrixView<float> x) {
  const int64_t rows = h.rows;
  const ModelConfig& config = s_.config;
  const MatrixView<float> fused = s_.fused.view().slice(0, rows);
  s_.projector.multiply(w_.qkv_a, h, fused);
  const MatrixView<float> q = project_queries(fused);
  cache_latent(step, columns(fused, w_.kv_column, config.kv_lora_rank + config.qk_rope_head_dim));
  step.lap(Phase::kProject);
  if (s_.expanded) attend_expanded(step, q);
  attend_absorbed(step, q, s_.expanded ? TokenRole::kGenerated : TokenRole::kAny);
  s_.projector.multiply_add(w_.o, s_.values.view().slice(0, rows), x);
  step.lap(Phase::kOutput);
}

MatrixView<float> MlaAttention::project_queries(MatrixView<float> fused) {
  const ModelConfig& config = s_.config;
  if (config.q_lora_rank == 0) return columns(fused, 0, s_.q.cols());
  const MatrixView<float> low = columns(fused, 0, config.q_lora_rank);
  s_.compute.for_rows(low.rows, [&](int64_t r) {
    s_.compute.kernels.rms_norm(low.row(r).data(), w_.q_a_norm.data(), low.cols,
                                static_cast<float>(config.rms_norm_eps), low.row(r).data());
  });
  const MatrixView<float> q = s_.q.view().slice(0, low.rows);
  s_.projector.multiply(w_.q_b, low, q);
  return q;
}

void MlaAttention::cache_latent(Step& step, MatrixView<float> kv) {
  const math::Kernels& kernels = s_.compute.kernels;
  const int64_t rank = s_.config.kv_lora_rank;
  const int64_t rope = s_.config.qk_rope_head_dim;
  s_.compute.for_rows(kv.rows, [&](int64_t r) {
    const std::span<float> row = kv.row(r);
    kernels.rms_norm(row.data(), w_.kv_a_norm.data(), rank,
                     static_cast<float>(s_.config.rms_norm_eps), row.data());
    kernels.rope_interleaved(row.data() + rank, step.rope().cosines(r), step.rope().sines(r), rope);
    write_cached(kernels, s_.format, row, step.cache_row(layer_, r));
  });
  step.observe("mla", layer_, "c_kv", columns(kv, 0, rank));
  step.observe("mla", layer_, "k_pe", columns(kv, rank, rope));
}

// The kernel takes the heads' queries as they are, but rotated; `queries` has room for the wider
// absorbed ones.
void MlaAttention::attend_expanded(Step& step, MatrixView<const float> q) {
  const ModelConfig& config = s_.config;
  const int64_t width = config.num_heads * config.q_head_dim();
  for (const RowRun& run : step.runs(TokenRole::kPrompt)) {
    s_.compute.for_rows(run.count, [&](int64_t i) {
      const int64_t r = run.first + i;
      float* rotated = s_.queries.data() + r * width;
      std::copy_n(q.row(r).data(), width, rotated);
      for (int64_t h = 0; h < config.num_heads; ++h) {
        s_.compute.kernels.rope_interleaved(
            rotated + h * config.q_head_dim() + config.qk_nope_head_dim, step.rope().cosines(r),
            step.rope().sines(r), config.qk_rope_head_dim);
      }
    });
  }
  s_.expanded->forward({.keys = w_.w_uk, .values = w_.w_uv},
                       step.chunks(layer_,
                                   {.q = s_.queries.data(),
                                    .q_width = width,
                                    .out = s_.values.data(),
                                    .out_width = s_.values.cols()},
                                   TokenRole::kPrompt));
  step.lap(Phase::kAttention);
}

void MlaAttention::attend_absorbed(Step& step, MatrixView<const float> q, TokenRole role) {
  const std::span<const RowRun> runs = step.runs(role);
  for (const RowRun& run : runs)
    absorb(step, q, run);
  step.lap(Phase::kAbsorb);
  s_.kernel.forward(step.chunks(layer_,
                                {.q = s_.queries.data(),
                                 .q_width = s_.queries.cols(),
                                 .out = s_.latent.data(),
                                 .out_width = s_.latent.cols()},
                                role));
  step.lap(Phase::kAttention);
  for (const RowRun& run : runs) {
    s_.heads.multiply(w_.w_uv, run.count,
                      {s_.latent.row(run.first).data(), s_.latent.cols(), s_.shape.value_width},
                      {s_.values.row(run.first).data(), s_.values.cols(), s_.config.v_head_dim});
  }
  step.lap(Phase::kAbsorb);
}

void MlaAttention::absorb(const Step& step, MatrixView<const float> q, const RowRun& run) {
  const ModelConfig& config = s_.config;
  const int64_t nope = config.qk_nope_head_dim;
  const int64_t rope = config.qk_rope_head_dim;
  const int64_t rank = config.kv_lora_rank;
  s_.compute.for_rows(run.count, [&](int64_t i) {
    const int64_t r = run.first + i;
    for (int64_t h = 0; h < config.num_heads; ++h) {
      float* rotated = &s_.queries(r, h * (rank + rope) + rank);
      std::copy_n(&q(r, h * (nope + rope) + nope), rope, rotated);
      s_.compute.kernels.rope_interleaved(rotated, step.rope().cosines(r), step.rope().sines(r),
                                          rope);
    }
  });
  s_.heads.multiply(w_.w_uk_t, run.count, {q.row(run.first).data(), q.stride, nope + rope},
                    {s_.queries.row(run.first).data(), s_.queries.cols(), rank + rope});
}

void GqaAttention::forward(Step& step, MatrixView<const float> h, MatrixView<float> x) {
  const int64_t rows = h.rows;
  const int64_t dim = s_.config.head_dim;
  const MatrixView<float> fused = s_.fused.view().slice(0, rows);
  s_.projector.multiply(w_.qkv, h, fused);
  cache_keys_and_values(step, fused);
  s_.compute.for_rows(rows, [&](int64_t r) {
    std::copy_n(fused.row(r).data(), s_.queries.cols(), s_.queries.row(r).data());
    for (int64_t head = 0; head < s_.config.num_heads; ++head)
      rotate(step, r, &s_.queries(r, head * dim), w_.q_norm);
  });
  step.lap(Phase::kProject);
  s_.kernel.forward(step.chunks(layer_, {.q = s_.queries.data(),
                                         .q_width = s_.queries.cols(),
                                         .out = s_.latent.data(),
                                         .out_width = s_.latent.cols()}));
  step.lap(Phase::kAttention);
  s_.projector.multiply_add(w_.o, s_.latent.view().slice(0, rows), x);
  step.lap(Phase::kOutput);
}

// Normalises one head and rotates it.
void GqaAttention::rotate(const Step& step,
                          int64_t row,
                          float* head,
                          std::span<const float> norm) const {
  const math::Kernels& kernels = s_.compute.kernels;
  const auto dim = static_cast<int64_t>(norm.size());
  kernels.rms_norm(head, norm.data(), dim, static_cast<float>(s_.config.rms_norm_eps), head);
  kernels.rope_half(head, step.rope().cosines(row), step.rope().sines(row), dim);
}

void GqaAttention::cache_keys_and_values(Step& step, MatrixView<float> fused) {
  const int64_t dim = s_.config.head_dim;
  const int64_t width = s_.config.num_kv_heads * dim;
  const MatrixView<float> keys = columns(fused, w_.k_column, width);
  const MatrixView<float> values = columns(fused, w_.v_column, width);
  s_.compute.for_rows(fused.rows, [&](int64_t r) {
    for (int64_t head = 0; head < s_.config.num_kv_heads; ++head)
      rotate(step, r, &keys(r, head * dim), w_.k_norm);
    std::byte* cached = step.cache_row(layer_, r);
    write_cached(s_.compute.kernels, s_.format, keys.row(r), cached);
    write_cached(s_.compute.kernels, s_.format, values.row(r),
                 cached + width * math::cache_value_bytes(s_.format));
  });
  step.observe("kv", layer_, "k", keys);
  step.observe("kv", layer_, "v", values);
}

}  // namespace wideep::model
