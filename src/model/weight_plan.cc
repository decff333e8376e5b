#include "model/weight_plan.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/rounding.h"

#include <algorithm>
#include <unordered_map>

namespace wideep::model {

using math::WeightFormat;

namespace {

bool is_exact(WeightFormat format) {
  return format == WeightFormat::kF32 || format == WeightFormat::kBf16;
}

}  // namespace

WeightFormat natural_format(Storage storage, math::Precision precision) {
  const bool f32 = precision == math::Precision::kF32;
  switch (storage) {
    case Storage::kF32:
    case Storage::kF16:
      return f32 ? WeightFormat::kF32 : WeightFormat::kBf16;
    case Storage::kBf16:
      return WeightFormat::kBf16;
    case Storage::kFp8:
      return WeightFormat::kFp8;
    case Storage::kInt4:
      return f32 ? WeightFormat::kF32 : WeightFormat::kInt4;
  }
  return WeightFormat::kF32;
}

std::span<std::byte> bytes_at(ModelWeights& weights, const Place& place) {
  AlignedBuffer& arena = place.arena == Arena::kDense ? weights.dense_arena : weights.expert_arena;
  return arena.bytes().subspan(static_cast<size_t>(place.offset), static_cast<size_t>(place.bytes));
}

void WeightPlan::resolve(ModelWeights& weights) const {
  WD_CHECK(static_cast<int64_t>(weights.dense_arena.size()) >= dense_bytes_);
  WD_CHECK(static_cast<int64_t>(weights.expert_arena.size()) >= expert_bytes_);
  for (const ByteView& view : byte_views_)
    *view.target = bytes_at(weights, view.place);
  for (const FloatView& view : float_views_) {
    const std::span<std::byte> bytes = bytes_at(weights, view.place);
    *view.target = {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
  }
}

// Walks the model once and adds every tensor to the plan.
class WeightPlanner {
 public:
  WeightPlanner(const Checkpoint& checkpoint,
                const WeightOptions& options,
                ModelWeights& weights,
                WeightPlan& plan)
      : checkpoint_(checkpoint),
        config_(checkpoint.config()),
        options_(options),
        weights_(weights),
        plan_(plan) {}

  Status run();

 private:
  Result<TensorSource> source(const std::string& name,
                              TensorRole role,
                              int64_t rows,
                              int64_t cols) const {
    return checkpoint_.locate({.name = name, .role = role, .rows = rows, .cols = cols});
  }

  WeightFormat linear_format(const TensorSource& source) const {
    return options_.linear_format.value_or(natural_format(source.storage, options_.precision));
  }

  // Rows of `source` that a task takes at once: a multiple of kRowSlice.
  int64_t slice_rows(const TensorSource& source) const {
    return std::max(kRowSlice, options_.slice_bytes / source.row_bytes() / kRowSlice * kRowSlice);
  }

  // The exact format of a source that is never quantised.
  WeightFormat exact_format(const TensorSource& source) const {
    return source.storage == Storage::kBf16 ? WeightFormat::kBf16 : WeightFormat::kF32;
  }

  Place take(int64_t bytes);
  void add_task(PackTask task);
  void add_panels(const TensorSource& source, WeightFormat format, const Place& place);
  void add_matrix(std::span<const TensorSource> parts,
                  WeightFormat format,
                  math::PackedMatrix& out);
  Status add_vector(const std::string& name, int64_t rows, std::span<const float>& out);
  Status add_linear(const std::string& name, int64_t rows, int64_t cols, math::PackedMatrix& out);
  Status add_exact(const std::string& name, int64_t rows, int64_t cols, math::PackedMatrix& out);
  Status add_fused(std::span<const TensorSpec> specs, math::PackedMatrix& out);
  Status add_ffn(const std::string& name, int64_t inner, math::FfnWeights& out);
  Status add_embedding();
  Status add_head();
  Status add_mla(const std::string& prefix, MlaWeights& out);
  Status add_heads(const std::string& prefix, MlaWeights& out);
  Status add_gqa(const std::string& prefix, GqaWeights& out);
  Status add_moe(int64_t layer, MoeWeights& out);
  Status add_expert(int64_t layer, ExpertId expert, math::FfnWeights& out);
  Status add_draft(int64_t layer);
  Status add_layer(int64_t layer);

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const WeightOptions& options_;
  ModelWeights& weights_;
  WeightPlan& plan_;
};

Place WeightPlanner::take(int64_t bytes) {
  const Place place{Arena::kDense, plan_.dense_bytes_, bytes};
  plan_.dense_bytes_ += round_up(bytes, 64);
  plan_.items_.push_back(place);
  return place;
}

void WeightPlanner::add_task(PackTask task) {
  for (const TensorSource& source : task.sources)
    task.source_bytes += (task.rows.end - task.rows.begin) * source.row_bytes();
  if (task.kind == PackTask::Kind::kExpert) {
    task.source_bytes = 0;
    for (const TensorSource& source : task.sources)
      task.source_bytes += source.rows * source.row_bytes();
  }
  const TensorSource& last = task.sources.back();
  if (task.rows.end == last.rows) task.num_tensors = static_cast<int64_t>(task.sources.size());
  plan_.tasks_.push_back(std::move(task));
}

// `place` holds the panels of this source from its first row on.
void WeightPlanner::add_panels(const TensorSource& source,
                               WeightFormat format,
                               const Place& place) {
  const int64_t step = slice_rows(source);
  const int64_t panel = math::panel_bytes(format, source.cols);
  for (int64_t begin = 0; begin < source.rows; begin += step) {
    const int64_t end = std::min(source.rows, begin + step);
    const int64_t panels = divide_up(end - begin, math::kPanelCols);
    add_task(
        {.kind = PackTask::Kind::kPanels,
         .sources = {source},
         .rows = {begin, end},
         .format = format,
         .place = {place.arena, place.offset + begin / math::kPanelCols * panel, panels * panel}});
  }
}

// One packed matrix of all parts, each beginning at a panel.
void WeightPlanner::add_matrix(std::span<const TensorSource> parts,
                               WeightFormat format,
                               math::PackedMatrix& out) {
  out.format = format;
  out.k = parts.front().cols;
  out.n = 0;
  for (const TensorSource& part : parts)
    out.n = round_up(out.n, math::kPanelCols) + part.rows;
  const Place place = take(math::packed_bytes(format, out.n, out.k));
  plan_.byte_views_.push_back({&out.bytes, place});
  int64_t column = 0;
  for (const TensorSource& part : parts) {
    column = round_up(column, math::kPanelCols);
    const int64_t skip = column / math::kPanelCols * math::panel_bytes(format, out.k);
    add_panels(part, format, {place.arena, place.offset + skip, place.bytes - skip});
    column += part.rows;
  }
}

Status WeightPlanner::add_vector(const std::string& name,
                                 int64_t rows,
                                 std::span<const float>& out) {
  WD_ASSIGN_OR_RETURN(TensorSource vector, source(name, TensorRole::kVector, rows, 0));
  const Place place = take(rows * static_cast<int64_t>(sizeof(float)));
  plan_.float_views_.push_back({&out, place});
  add_task({.kind = PackTask::Kind::kFloats,
            .sources = {std::move(vector)},
            .rows = {0, rows},
            .place = place});
  return {};
}

Status WeightPlanner::add_linear(const std::string& name,
                                 int64_t rows,
                                 int64_t cols,
                                 math::PackedMatrix& out) {
  WD_ASSIGN_OR_RETURN(const TensorSource matrix, source(name, TensorRole::kLinear, rows, cols));
  add_matrix(std::span(&matrix, 1), linear_format(matrix), out);
  return {};
}

Status WeightPlanner::add_exact(const std::string& name,
                                int64_t rows,
                                int64_t cols,
                                math::PackedMatrix& out) {
  WD_ASSIGN_OR_RETURN(const TensorSource matrix,
                      source(name, TensorRole::kExactMatrix, rows, cols));
  add_matrix(std::span(&matrix, 1), exact_format(matrix), out);
  return {};
}

Status WeightPlanner::add_fused(std::span<const TensorSpec> specs, math::PackedMatrix& out) {
  std::vector<TensorSource> parts;
  for (const TensorSpec& spec : specs) {
    WD_ASSIGN_OR_RETURN(TensorSource part, checkpoint_.locate(spec));
    parts.push_back(std::move(part));
  }
  WeightFormat format = linear_format(parts.front());
  for (const TensorSource& part : parts) {
    if (linear_format(part) == format) continue;
    format = options_.precision == math::Precision::kF32 ? WeightFormat::kF32 : WeightFormat::kBf16;
  }
  add_matrix(parts, format, out);
  return {};
}

Status WeightPlanner::add_ffn(const std::string& name, int64_t inner, math::FfnWeights& out) {
  const int64_t hidden = config_.hidden_size;
  WD_ASSIGN_OR_RETURN(const TensorSource gate,
                      source(name + ".gate_proj.weight", TensorRole::kLinear, inner, hidden));
  WD_ASSIGN_OR_RETURN(const TensorSource up,
                      source(name + ".up_proj.weight", TensorRole::kLinear, inner, hidden));
  const WeightFormat format = linear_format(gate);
  out.gate_up = {.format = format, .n = 2 * inner, .k = hidden};
  const Place place = take(math::packed_gate_up_bytes(format, inner, hidden));
  plan_.byte_views_.push_back({&out.gate_up.bytes, place});
  constexpr int64_t kHalf = math::kPanelCols / 2;
  const int64_t panel = math::panel_bytes(format, hidden);
  const int64_t step = slice_rows(gate);
  for (int64_t begin = 0; begin < inner; begin += step) {
    const int64_t end = std::min(inner, begin + step);
    add_task({.kind = PackTask::Kind::kGateUp,
              .sources = {gate, up},
              .rows = {begin, end},
              .format = format,
              .place = {place.arena, place.offset + begin / kHalf * panel,
                        math::packed_gate_up_bytes(format, end - begin, hidden)}});
  }
  WD_ASSIGN_OR_RETURN(const TensorSource down,
                      source(name + ".down_proj.weight", TensorRole::kLinear, hidden, inner));
  add_matrix(std::span(&down, 1), format, out.down);
  return {};
}

Status WeightPlanner::add_embedding() {
  WD_ASSIGN_OR_RETURN(const TensorSource rows,
                      source("model.embed_tokens.weight", TensorRole::kExactMatrix,
                             config_.vocab_size, config_.hidden_size));
  weights_.embedding.format = exact_format(rows);
  const int64_t value_bytes = weights_.embedding.format == WeightFormat::kBf16 ? 2 : 4;
  const int64_t row_bytes = rows.cols * value_bytes;
  const Place place = take(rows.rows * row_bytes);
  plan_.byte_views_.push_back({&weights_.embedding.rows, place});
  const int64_t step = slice_rows(rows);
  for (int64_t begin = 0; begin < rows.rows; begin += step) {
    const int64_t end = std::min(rows.rows, begin + step);
    add_task({.kind = PackTask::Kind::kRows,
              .sources = {rows},
              .rows = {begin, end},
              .format = weights_.embedding.format,
              .place = {place.arena, place.offset + begin * row_bytes, (end - begin) * row_bytes}});
  }
  return {};
}

// The head is as exact as the checkpoint has it, but int8 when the linears are int8 or int4: it is
// read for every token, and 8 bits do not show in its logits where 4 would.
Status WeightPlanner::add_head() {
  const std::string name =
      config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  WD_ASSIGN_OR_RETURN(const TensorSource head, source(name, TensorRole::kExactMatrix,
                                                      config_.vocab_size, config_.hidden_size));
  WeightFormat format = options_.precision == math::Precision::kF32
                            ? exact_format(head)
                            : natural_format(head.storage, options_.precision);
  if (options_.linear_format && !is_exact(*options_.linear_format) &&
      *options_.linear_format != WeightFormat::kFp8) {
    format = WeightFormat::kInt8;
  }
  add_matrix(std::span(&head, 1), format, weights_.lm_head);
  return {};
}

Status WeightPlanner::add_mla(const std::string& prefix, MlaWeights& out) {
  const int64_t hidden = config_.hidden_size;
  const int64_t q_rows = config_.num_heads * config_.q_head_dim();
  const int64_t rank = config_.q_lora_rank;
  const TensorSpec q{.name = prefix + (rank > 0 ? "q_a_proj.weight" : "q_proj.weight"),
                     .rows = rank > 0 ? rank : q_rows,
                     .cols = hidden};
  const TensorSpec kv{.name = prefix + "kv_a_proj_with_mqa.weight",
                      .rows = config_.kv_lora_rank + config_.qk_rope_head_dim,
                      .cols = hidden};
  WD_TRY(add_fused(std::array{q, kv}, out.qkv_a));
  out.kv_column = round_up(q.rows, math::kPanelCols);
  if (rank > 0) {
    WD_TRY(add_vector(prefix + "q_a_layernorm.weight", rank, out.q_a_norm));
    WD_TRY(add_linear(prefix + "q_b_proj.weight", q_rows, rank, out.q_b));
  }
  WD_TRY(add_vector(prefix + "kv_a_layernorm.weight", config_.kv_lora_rank, out.kv_a_norm));
  WD_TRY(add_heads(prefix, out));
  return add_linear(prefix + "o_proj.weight", hidden, config_.num_heads * config_.v_head_dim,
                    out.o);
}

// kv_b as per-head W_UK^T and W_UV, and W_UK if prompts are expanded: bf16, or f32 where the f32
// path would lose by bf16.
Status WeightPlanner::add_heads(const std::string& prefix, MlaWeights& out) {
  const int64_t rank = config_.kv_lora_rank;
  const int64_t nope = config_.qk_nope_head_dim;
  const int64_t v = config_.v_head_dim;
  const int64_t heads = config_.num_heads;
  WD_ASSIGN_OR_RETURN(TensorSource kv_b, source(prefix + "kv_b_proj.weight", TensorRole::kLinear,
                                                heads * (nope + v), rank));
  const WeightFormat format =
      options_.precision == math::Precision::kF32 ? exact_format(kv_b) : WeightFormat::kBf16;
  const Place place =
      take(heads * (math::packed_bytes(format, rank, nope) + math::packed_bytes(format, v, rank) +
                    (options_.expanded_prompts ? math::packed_bytes(format, nope, rank) : 0)));
  Place next = place;
  const auto add_views = [&](std::vector<math::PackedMatrix>& matrices, int64_t n, int64_t k) {
    next.bytes = math::packed_bytes(format, n, k);
    matrices.resize(static_cast<size_t>(heads), {.format = format, .n = n, .k = k});
    for (math::PackedMatrix& matrix : matrices) {
      plan_.byte_views_.push_back({&matrix.bytes, next});
      next.offset += next.bytes;
    }
  };
  add_views(out.w_uk_t, rank, nope);
  add_views(out.w_uv, v, rank);
  if (options_.expanded_prompts) add_views(out.w_uk, nope, rank);
  const RowRange rows{0, kv_b.rows};
  add_task({.kind = PackTask::Kind::kHeads,
            .sources = {std::move(kv_b)},
            .rows = rows,
            .format = format,
            .place = place});
  return {};
}

Status WeightPlanner::add_gqa(const std::string& prefix, GqaWeights& out) {
  const int64_t hidden = config_.hidden_size;
  const int64_t q_rows = config_.num_heads * config_.head_dim;
  const int64_t kv_rows = config_.num_kv_heads * config_.head_dim;
  const TensorSpec q{.name = prefix + "q_proj.weight", .rows = q_rows, .cols = hidden};
  const TensorSpec k{.name = prefix + "k_proj.weight", .rows = kv_rows, .cols = hidden};
  const TensorSpec v{.name = prefix + "v_proj.weight", .rows = kv_rows, .cols = hidden};
  WD_TRY(add_fused(std::array{q, k, v}, out.qkv));
  out.k_column = round_up(q_rows, math::kPanelCols);
  out.v_column = round_up(out.k_column + kv_rows, math::kPanelCols);
  WD_TRY(add_vector(prefix + "q_norm.weight", config_.head_dim, out.q_norm));
  WD_TRY(add_vector(prefix + "k_norm.weight", config_.head_dim, out.k_norm));
  return add_linear(prefix + "o_proj.weight", hidden, q_rows, out.o);
}

Status WeightPlanner::add_expert(int64_t layer, ExpertId expert, math::FfnWeights& out) {
  const int64_t inner = config_.moe_intermediate_size;
  const int64_t hidden = config_.hidden_size;
  const WeightFormat format = weights_.expert_format;
  PackTask task{
      .kind = PackTask::Kind::kExpert, .format = format, .layer = layer, .expert = index(expert)};
  WD_TRY(
      for_each_expert_tensor(config_, layer, index(expert), [&](const TensorSpec& spec) -> Status {
        WD_ASSIGN_OR_RETURN(TensorSource part, checkpoint_.locate(spec));
        task.sources.push_back(std::move(part));
        return {};
      }));
  task.rows = {0, task.sources.back().rows};
  const int64_t gate_up = math::packed_gate_up_bytes(format, inner, hidden);
  const int64_t down = math::packed_bytes(format, hidden, inner);
  constexpr int64_t kHeader = sizeof(ExpertBlobHeader);
  weights_.expert_blob_bytes = kHeader + gate_up + down;
  task.place = {Arena::kExperts, plan_.expert_bytes_, weights_.expert_blob_bytes};
  plan_.expert_bytes_ += weights_.expert_blob_bytes;
  plan_.items_.push_back(task.place);
  const int64_t begin = task.place.offset + kHeader;
  out.gate_up = {.format = format, .n = 2 * inner, .k = hidden};
  out.down = {.format = format, .n = hidden, .k = inner};
  plan_.byte_views_.push_back({&out.gate_up.bytes, {Arena::kExperts, begin, gate_up}});
  plan_.byte_views_.push_back({&out.down.bytes, {Arena::kExperts, begin + gate_up, down}});
  add_task(std::move(task));
  return {};
}

Status WeightPlanner::add_moe(int64_t layer, MoeWeights& out) {
  const std::string prefix = layer_prefix(layer) + "mlp.";
  WD_TRY(add_exact(prefix + "gate.weight", config_.num_experts(), config_.hidden_size, out.gate));
  if (config_.router.has_correction_bias) {
    WD_TRY(add_vector(prefix + "gate.e_score_correction_bias", config_.num_experts(), out.bias));
  }
  if (config_.num_shared_experts > 0) {
    WD_TRY(add_ffn(prefix + "shared_experts", config_.shared_intermediate_size(),
                   out.shared.emplace()));
  }
  std::vector<ExpertId> slots;
  if (!options_.slots.empty()) {
    slots = options_.slots[static_cast<size_t>(layer)];
  } else {
    for (int32_t e = 0; e < config_.num_experts(); ++e)
      slots.push_back(ExpertId{e});
  }
  out.slots.resize(slots.size());
  for (size_t slot = 0; slot < slots.size(); ++slot)
    WD_TRY(add_expert(layer, slots[slot], out.slots[slot]));
  return {};
}

Status WeightPlanner::add_draft(int64_t layer) {
  const std::string prefix = layer_prefix(layer);
  const int64_t hidden = config_.hidden_size;
  WD_TRY(add_vector(prefix + "enorm.weight", hidden, weights_.draft.embedding_norm));
  WD_TRY(add_vector(prefix + "hnorm.weight", hidden, weights_.draft.hidden_norm));
  WD_TRY(add_linear(prefix + "eh_proj.weight", hidden, 2 * hidden, weights_.draft.eh_proj));
  return add_vector(prefix + "shared_head.norm.weight", hidden, weights_.draft.head_norm);
}

Status WeightPlanner::add_layer(int64_t layer) {
  LayerWeights& out = weights_.layers[static_cast<size_t>(layer)];
  const std::string prefix = layer_prefix(layer);
  const int64_t hidden = config_.hidden_size;
  WD_TRY(add_vector(prefix + "input_layernorm.weight", hidden, out.input_norm));
  WD_TRY(add_vector(prefix + "post_attention_layernorm.weight", hidden, out.post_attention_norm));
  if (config_.attention == AttentionKind::kMla) {
    WD_TRY(add_mla(prefix + "self_attn.", out.mla));
  } else {
    WD_TRY(add_gqa(prefix + "self_attn.", out.gqa));
  }
  if (!config_.is_moe(layer)) {
    return add_ffn(prefix + "mlp", config_.intermediate_size, out.dense);
  }
  return add_moe(layer, out.moe);
}

Status WeightPlanner::run() {
  WD_ASSIGN_OR_RETURN(weights_.expert_format, resolve_expert_format(checkpoint_, options_));
  const int64_t num_layers = config_.num_layers_with_draft(options_.draft);
  weights_.layers.resize(static_cast<size_t>(num_layers));
  WD_TRY(add_embedding());
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    if (layer >= config_.num_layers) WD_TRY(add_draft(layer));
    WD_TRY(add_layer(layer));
  }
  WD_TRY(add_vector("model.norm.weight", config_.hidden_size, weights_.final_norm));
  WD_TRY(add_head());
  plan_.shapes_ = {.num_heads = config_.num_heads,
                   .nope = config_.qk_nope_head_dim,
                   .v = config_.v_head_dim,
                   .expert_layout = xxh64(fmt::format(
                       "expert 1 {} hidden {} inner {}", math::name(weights_.expert_format),
                       config_.hidden_size, config_.moe_intermediate_size)),
                   .expanded_prompts = options_.expanded_prompts};
  // Disks and page caches like to be read from front to back.
  std::unordered_map<const SafetensorsFile*, size_t> file_index;
  for (const auto& file : checkpoint_.files())
    file_index.emplace(file.get(), file_index.size());
  const auto position = [&](const PackTask& task) {
    const TensorSource& source = task.sources.front();
    return std::pair(
        file_index.at(source.values.file),
        source.values.entry->begin + (source.first_row + task.rows.begin) * source.row_bytes());
  };
  std::ranges::sort(plan_.tasks_, {}, position);
  return {};
}

Result<WeightPlan> WeightPlan::make(const Checkpoint& checkpoint,
                                    const WeightOptions& options,
                                    ModelWeights& weights) {
  WeightPlan plan;
  WD_TRY(WeightPlanner(checkpoint, options, weights, plan).run());
  return plan;
}

}  // namespace wideep::model
