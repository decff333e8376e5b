// A checkpoint folder: config.json and safetensors files, with an index or a single one. Opening it
// reads headers only and checks that every tensor the config calls for is there with the right
// dtype and shape; the values are checked where they are loaded (matrix_reader.h).
//
// Messages name the file and the tensor. Extra tensors are allowed. Thread: read-only once open.
#pragma once

#include "base/result.h"
#include "model/config.h"
#include "model/safetensors.h"
#include "model/tensor_names.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace wideep::model {

// How the values of a matrix are stored.
enum class Storage : uint8_t {
  kF32,
  kF16,
  kBf16,
  kFp8,   // with scales [ceil(rows/128), ceil(cols/128)] f32
  kInt4,  // I32 words of 8 nibbles along the columns, scales BF16 [rows, cols/32]
};

struct TensorRef {
  const SafetensorsFile* file = nullptr;
  const TensorEntry* entry = nullptr;
};

// Where the rows x cols values of a spec lie.
struct TensorSource {
  std::string name;
  TensorRef values;
  std::optional<TensorRef> scales;
  Storage storage = Storage::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t first_row = 0;  // of the tensor; not 0 for one expert of a merged tensor

  // Bytes of one row of values.
  int64_t row_bytes() const;
  // "model-00001-of-00002.safetensors: tensor 'x'"
  std::string where() const;
};

// Resolves shard names: a plain file name ending in ".safetensors".
bool is_plain_shard_name(std::string_view name);

// Tensor name -> shard, of an index file's text.
Result<std::vector<std::pair<std::string, std::string>>> parse_index(std::string_view text);

class Checkpoint {
 public:
  struct Options {
    bool draft = false;  // the draft layer's tensors are needed as well
  };

  static Result<Checkpoint> open(const std::string& folder, const Options& options);

  const std::string& folder() const { return folder_; }

  const ModelConfig& config() const { return config_; }

  const std::vector<std::unique_ptr<SafetensorsFile>>& files() const { return files_; }

  // Where a spec's tensor lies; checks dtype, shape and scales.
  Result<TensorSource> locate(const TensorSpec& spec) const;

  // Hash of what identifies weights and architecture: the config's text, every shard's header and
  // size, and samples of its data. The same on every machine that has a copy.
  Result<std::string> fingerprint() const;

 private:
  Status open_files();
  Status open_file(const std::string& name);
  const TensorRef* find(std::string_view name) const;
  Result<TensorSource> locate_plain(const TensorSpec& spec, const TensorRef& values) const;
  Result<TensorSource> locate_int4(const TensorSpec& spec, const TensorRef& packed) const;
  std::optional<Result<TensorSource>> locate_merged(const TensorSpec& spec) const;

  std::string folder_;
  std::string config_text_;
  ModelConfig config_;
  std::string index_name_;  // the file that says what there is, for messages
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::unordered_map<std::string_view, TensorRef> tensors_;  // keys live in files_
};

}  // namespace wideep::model
