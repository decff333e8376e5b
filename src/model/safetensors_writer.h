// Writes safetensors checkpoints as a stream: the tensors are declared first, so that the headers
// are known, then their bytes come in the order of declaration. Shards are cut by size and named as
// Hugging Face names them; more than one gets an index.
//
// Thread: one at a time.
#pragma once

#include "base/result.h"
#include "model/safetensors.h"

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace wideep::model {

class SafetensorsWriter {
 public:
  // Files go into `folder`, which exists.
  SafetensorsWriter(std::string folder, int64_t shard_bytes_max);

  void declare(const std::string& name, Dtype dtype, std::vector<int64_t> shape);
  // The next bytes of the tensors, in the order of declaration.
  Status write(std::span<const std::byte> bytes);
  // All declared bytes have been written (checked): closes the last shard, writes the index.
  Status finish();

  int64_t total_bytes() const { return total_bytes_; }

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  struct Shard {
    std::vector<TensorEntry> tensors;
    int64_t bytes = 0;
  };

  std::string shard_name(size_t shard) const;
  Status open_shard(size_t shard);
  Status put(std::span<const std::byte> bytes);
  Status close_shard();

  const std::string folder_;
  const int64_t shard_bytes_max_;
  std::vector<Shard> shards_;
  int64_t total_bytes_ = 0;
  std::unique_ptr<std::FILE, Closer> file_;
  size_t shard_ = 0;        // being written
  int64_t shard_done_ = 0;  // bytes of its data
};

}  // namespace wideep::model
