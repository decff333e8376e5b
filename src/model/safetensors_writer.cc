#include "model/safetensors_writer.h"

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rounding.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace wideep::model {
namespace {

Json::Array json_array(std::span<const int64_t> values) {
  Json::Array array;
  for (const int64_t value : values)
    array.emplace_back(value);
  return array;
}

// The header of a shard, padded with spaces to a multiple of 8.
std::string header_text(std::span<const TensorEntry> tensors) {
  Json metadata;
  metadata.set("format", "pt");
  std::string text = "{\"__metadata__\":" + metadata.dump();
  for (const TensorEntry& tensor : tensors) {
    Json entry;
    entry.set("dtype", name(tensor.dtype))
        .set("shape", json_array(tensor.shape))
        .set("data_offsets", Json::Array{tensor.begin, tensor.end});
    text += ',';
    append_json_string(text, tensor.name);
    text += ':';
    entry.dump_to(text);
  }
  text += '}';
  text.resize(round_up(text.size(), 8), ' ');
  return text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::string folder, int64_t shard_bytes_max)
    : folder_(std::move(folder)), shard_bytes_max_(shard_bytes_max), shards_(1) {}

void SafetensorsWriter::declare(const std::string& name, Dtype dtype, std::vector<int64_t> shape) {
  int64_t bytes = bytes_of(dtype);
  for (const int64_t extent : shape)
    bytes *= extent;
  if (!shards_.back().tensors.empty() && shards_.back().bytes + bytes > shard_bytes_max_) {
    shards_.emplace_back();
  }
  Shard& shard = shards_.back();
  shard.tensors.push_back({.name = name,
                           .dtype = dtype,
                           .shape = std::move(shape),
                           .begin = shard.bytes,
                           .end = shard.bytes + bytes});
  shard.bytes += bytes;
  total_bytes_ += bytes;
}

std::string SafetensorsWriter::shard_name(size_t shard) const {
  if (shards_.size() == 1) return "model.safetensors";
  return fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards_.size());
}

Status SafetensorsWriter::open_shard(size_t shard) {
  const std::string path = fmt::format("{}/{}", folder_, shard_name(shard));
  file_.reset(std::fopen(path.c_str(), "wb"));
  if (!file_) {
    return error(ErrorCode::kUnavailable, "{}: cannot create: {}", path, strerrordesc_np(errno));
  }
  const std::string header = header_text(shards_[shard].tensors);
  const uint64_t length = header.size();
  WD_TRY(put(std::as_bytes(std::span(&length, 1))));
  WD_TRY(put(std::as_bytes(std::span(header))));
  shard_ = shard;
  shard_done_ = 0;
  return {};
}

Status SafetensorsWriter::put(std::span<const std::byte> bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) == bytes.size()) return {};
  return error(ErrorCode::kUnavailable, "{}/{}: cannot write: {}", folder_, shard_name(shard_),
               strerrordesc_np(errno));
}

Status SafetensorsWriter::close_shard() {
  if (std::fclose(file_.release()) == 0) return {};
  return error(ErrorCode::kUnavailable, "{}/{}: cannot write: {}", folder_, shard_name(shard_),
               strerrordesc_np(errno));
}

Status SafetensorsWriter::write(std::span<const std::byte> bytes) {
  if (!file_) WD_TRY(open_shard(0));
  while (!bytes.empty()) {
    if (shard_done_ == shards_[shard_].bytes) {
      WD_TRY(close_shard());
      WD_CHECK(shard_ + 1 < shards_.size());
      WD_TRY(open_shard(shard_ + 1));
    }
    const auto room = static_cast<size_t>(shards_[shard_].bytes - shard_done_);
    const std::span<const std::byte> part = bytes.first(std::min(bytes.size(), room));
    WD_TRY(put(part));
    shard_done_ += static_cast<int64_t>(part.size());
    bytes = bytes.subspan(part.size());
  }
  return {};
}

Status SafetensorsWriter::finish() {
  WD_CHECK(file_ != nullptr);
  WD_CHECK(shard_ + 1 == shards_.size());
  WD_CHECK(shard_done_ == shards_[shard_].bytes);
  WD_TRY(close_shard());
  if (shards_.size() == 1) return {};
  Json::Object map;
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    for (const TensorEntry& tensor : shards_[shard].tensors)
      map.emplace_back(tensor.name, shard_name(shard));
  }
  Json metadata;
  metadata.set("total_size", total_bytes_);
  Json index;
  index.set("metadata", metadata).set("weight_map", std::move(map));
  return write_file(folder_ + "/model.safetensors.index.json", index.dump());
}

}  // namespace wideep::model
