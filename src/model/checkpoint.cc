#include "model/checkpoint.h"

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/rounding.h"
#include "math/formats.h"

#include <algorithm>
#include <array>

namespace wideep::model {
namespace {

constexpr int64_t kIndexBytesMax = 256 << 20;
constexpr size_t kShardNameBytesMax = 255;
constexpr size_t kShardsMax = 4096;
constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr std::string_view kSingleName = "model.safetensors";
constexpr std::string_view kWeightSuffix = ".weight";

using Shape = std::vector<int64_t>;

Status check_tensor(const TensorRef& ref, std::span<const Dtype> dtypes, const Shape& shape) {
  const TensorEntry& entry = *ref.entry;
  if (std::ranges::find(dtypes, entry.dtype) == dtypes.end()) {
    std::string allowed;
    for (const Dtype dtype : dtypes)
      allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", name(dtype));
    return invalid_argument("{}: tensor '{}': dtype {}, the config calls for {}", ref.file->name(),
                            entry.name, name(entry.dtype), allowed);
  }
  if (entry.shape != shape) {
    return invalid_argument("{}: tensor '{}': shape {}, the config calls for {}", ref.file->name(),
                            entry.name, describe_shape(entry.shape), describe_shape(shape));
  }
  return {};
}

Storage storage_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF16:
      return Storage::kF16;
    case Dtype::kBf16:
      return Storage::kBf16;
    case Dtype::kF8E4M3:
      return Storage::kFp8;
    default:
      return Storage::kF32;
  }
}

std::string_view without_weight(std::string_view name) {
  return name.ends_with(kWeightSuffix) ? name.substr(0, name.size() - kWeightSuffix.size()) : name;
}

}  // namespace

int64_t TensorSource::row_bytes() const {
  const int64_t width = std::max<int64_t>(cols, 1);
  switch (storage) {
    case Storage::kF32:
      return width * 4;
    case Storage::kF16:
    case Storage::kBf16:
      return width * 2;
    case Storage::kFp8:
      return width;
    case Storage::kInt4:
      return width / 2;
  }
  return 0;
}

std::string TensorSource::where() const {
  return fmt::format("{}: tensor '{}'", values.file->name(), values.entry->name);
}

bool is_plain_shard_name(std::string_view name) {
  return name.ends_with(".safetensors") && name.size() <= kShardNameBytesMax &&
         !name.starts_with('.') && name.find_first_of("/\\") == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

Result<std::vector<std::pair<std::string, std::string>>> parse_index(std::string_view text) {
  WD_ASSIGN_OR_RETURN(const Json json,
                      parse_json(text, {.depth_max = 8, .values_max = kSafetensorsTensorsMax}));
  const Json* map = json.find("weight_map");
  if (map == nullptr || !map->is_object()) return invalid_argument("no object 'weight_map'");
  std::vector<std::pair<std::string, std::string>> entries;
  entries.reserve(map->as_object()->size());
  for (const auto& [tensor, shard] : *map->as_object()) {
    const std::string* name = shard.as_string();
    if (name == nullptr || !is_plain_shard_name(*name)) {
      return invalid_argument("tensor '{}': {} is not the plain name of a .safetensors file",
                              tensor, shard.dump().substr(0, 300));
    }
    entries.emplace_back(tensor, *name);
  }
  return entries;
}

Result<Checkpoint> Checkpoint::open(const std::string& folder, const Options& options) {
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  WD_ASSIGN_OR_RETURN(checkpoint.config_text_, load_config_text(folder));
  WD_ASSIGN_OR_RETURN(checkpoint.config_, parse_config(checkpoint.config_text_));
  WD_TRY(checkpoint.open_files());
  WD_TRY(for_each_tensor(checkpoint.config_, options.draft, [&](const TensorSpec& spec) -> Status {
    WD_TRY(checkpoint.locate(spec));
    return {};
  }));
  return checkpoint;
}

Status Checkpoint::open_file(const std::string& file_name) {
  WD_ASSIGN_OR_RETURN(SafetensorsFile file,
                      SafetensorsFile::open(fmt::format("{}/{}", folder_, file_name)));
  files_.push_back(std::make_unique<SafetensorsFile>(std::move(file)));
  return {};
}

Status Checkpoint::open_files() {
  auto text = read_file(fmt::format("{}/{}", folder_, kIndexName), kIndexBytesMax);
  if (!text && text.error().code == ErrorCode::kNotFound) {
    index_name_ = kSingleName;
    WD_TRY(open_file(index_name_));
    for (const TensorEntry& entry : files_.front()->tensors())
      tensors_.emplace(entry.name, TensorRef{files_.front().get(), &entry});
    return {};
  }
  if (!text) return std::unexpected(text.error());
  index_name_ = kIndexName;
  auto index = parse_index(*text);
  if (!index) return with_context(index.error(), kIndexName);

  std::unordered_map<std::string_view, size_t> file_of;
  std::vector<std::unordered_map<std::string_view, const TensorEntry*>> entries_of;
  for (const auto& [tensor, shard] : *index) {
    auto [it, is_new] = file_of.try_emplace(shard, files_.size());
    if (is_new) {
      if (files_.size() == kShardsMax) {
        return invalid_argument("{}: more than {} shards", kIndexName, kShardsMax);
      }
      WD_TRY(open_file(shard));
      auto& entries = entries_of.emplace_back();
      for (const TensorEntry& entry : files_.back()->tensors())
        entries.emplace(entry.name, &entry);
    }
    const auto entry = entries_of[it->second].find(tensor);
    if (entry == entries_of[it->second].end()) {
      return invalid_argument("{}: tensor '{}': the index says it is here, but it is not", shard,
                              tensor);
    }
    tensors_.emplace(entry->second->name, TensorRef{files_[it->second].get(), entry->second});
  }
  return {};
}

const TensorRef* Checkpoint::find(std::string_view tensor) const {
  const auto it = tensors_.find(tensor);
  return it == tensors_.end() ? nullptr : &it->second;
}

Result<TensorSource> Checkpoint::locate(const TensorSpec& spec) const {
  if (const TensorRef* values = find(spec.name)) return locate_plain(spec, *values);
  if (spec.role == TensorRole::kLinear) {
    const std::string packed = fmt::format("{}.weight_packed", without_weight(spec.name));
    if (const TensorRef* values = find(packed)) return locate_int4(spec, *values);
  }
  if (auto merged = locate_merged(spec)) return std::move(*merged);
  return invalid_argument("{}: tensor '{}': missing, the config calls for it", index_name_,
                          spec.name);
}

Result<TensorSource> Checkpoint::locate_plain(const TensorSpec& spec,
                                              const TensorRef& values) const {
  static constexpr std::array kPlain = {Dtype::kBf16, Dtype::kF16, Dtype::kF32};
  static constexpr std::array kFp8 = {Dtype::kF8E4M3};
  static constexpr std::array kScale = {Dtype::kF32};
  const Shape shape = spec.cols == 0 ? Shape{spec.rows} : Shape{spec.rows, spec.cols};
  const std::string scale_name = fmt::format("{}_scale_inv", spec.name);
  const TensorRef* scales = spec.role == TensorRole::kLinear ? find(scale_name) : nullptr;
  const bool is_fp8 = spec.role == TensorRole::kLinear && values.entry->dtype == Dtype::kF8E4M3;
  if (is_fp8 || scales != nullptr) {
    WD_TRY(check_tensor(values, kFp8, shape));
    if (scales == nullptr) {
      return invalid_argument("{}: tensor '{}': dtype F8_E4M3, but '{}' is missing",
                              values.file->name(), spec.name, scale_name);
    }
    const Shape blocks = {divide_up(spec.rows, math::kScaleBlock),
                          divide_up(spec.cols, math::kScaleBlock)};
    WD_TRY(check_tensor(*scales, kScale, blocks));
  } else {
    WD_TRY(check_tensor(values, kPlain, shape));
  }
  TensorSource source{.name = spec.name,
                      .values = values,
                      .storage = storage_of(values.entry->dtype),
                      .rows = spec.rows,
                      .cols = spec.cols};
  if (scales != nullptr) source.scales = *scales;
  return source;
}

Result<TensorSource> Checkpoint::locate_int4(const TensorSpec& spec,
                                             const TensorRef& packed) const {
  static constexpr std::array kWords = {Dtype::kI32};
  static constexpr std::array kScale = {Dtype::kBf16};
  const std::string scale_name = fmt::format("{}.weight_scale", without_weight(spec.name));
  if (spec.cols % math::kInt4Group != 0) {
    return invalid_argument("{}: tensor '{}': {} columns are no multiple of the group of {}",
                            packed.file->name(), packed.entry->name, spec.cols, math::kInt4Group);
  }
  WD_TRY(check_tensor(packed, kWords, Shape{spec.rows, spec.cols / 8}));
  const TensorRef* scales = find(scale_name);
  if (scales == nullptr) {
    return invalid_argument("{}: tensor '{}': '{}' is missing", packed.file->name(),
                            packed.entry->name, scale_name);
  }
  WD_TRY(check_tensor(*scales, kScale, Shape{spec.rows, spec.cols / math::kInt4Group}));
  return TensorSource{.name = spec.name,
                      .values = packed,
                      .scales = *scales,
                      .storage = Storage::kInt4,
                      .rows = spec.rows,
                      .cols = spec.cols};
}

// One expert of `mlp.experts.gate_up_proj` [experts, 2 x inner, hidden] (gate rows first) or
// `mlp.experts.down_proj` [experts, hidden, inner]; nothing if the spec is no expert's or there are
// none.
std::optional<Result<TensorSource>> Checkpoint::locate_merged(const TensorSpec& spec) const {
  static constexpr std::array kPlain = {Dtype::kBf16, Dtype::kF16, Dtype::kF32};
  if (spec.expert < 0) return std::nullopt;
  const std::string prefix = fmt::format("{}mlp.experts.", layer_prefix(spec.layer));
  const bool is_down = spec.name.ends_with("down_proj.weight");
  const TensorRef* values = find(prefix + (is_down ? "down_proj" : "gate_up_proj"));
  if (values == nullptr) return std::nullopt;
  const int64_t rows_per_expert = is_down ? spec.rows : 2 * spec.rows;
  const Status fits =
      check_tensor(*values, kPlain, Shape{config_.num_experts(), rows_per_expert, spec.cols});
  if (!fits) return std::unexpected(fits.error());
  const bool is_up = spec.name.ends_with("up_proj.weight");
  return TensorSource{.name = spec.name,
                      .values = *values,
                      .storage = storage_of(values->entry->dtype),
                      .rows = spec.rows,
                      .cols = spec.cols,
                      .first_row = spec.expert * rows_per_expert + (is_up ? spec.rows : 0)};
}

Result<std::string> Checkpoint::fingerprint() const {
  constexpr int64_t kSampleBytes = 4096;
  constexpr int64_t kSamples = 16;
  std::string text = config_text_;
  std::vector<std::byte> sample(kSampleBytes);
  for (const auto& file : files_) {
    const int64_t data_bytes = file->file_bytes() - file->data_begin();
    text += fmt::format("\n{} {} {:016x}", file->name(), data_bytes, file->header_hash());
    for (int64_t i = 0; i < kSamples; ++i) {
      const int64_t bytes = std::min(kSampleBytes, data_bytes);
      const int64_t offset = (data_bytes - bytes) / kSamples * i;
      const std::span<std::byte> out = std::span(sample).first(static_cast<size_t>(bytes));
      WD_TRY(file->read_data(offset, out));
      text += fmt::format(" {:016x}", xxh64(out));
    }
  }
  return to_hex(sha256(std::as_bytes(std::span(text))), 32);
}

}  // namespace wideep::model
