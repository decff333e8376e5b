// One safetensors file: u64 little-endian header length | JSON header | data. The header is checked
// in full before anything is believed: known dtypes, shapes whose bytes are the range they name,
// ranges in the file, sorted and contiguous without gap or overlap.
//
// Thread: a SafetensorsFile may be read by many threads at once.
#pragma once

#include "base/file.h"
#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::model {

inline constexpr int64_t kSafetensorsHeaderBytesMax = 100'000'000;
inline constexpr int64_t kSafetensorsTensorsMax = 4'000'000;
inline constexpr int kSafetensorsRankMax = 8;

enum class Dtype : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kU16,
  kI16,
  kF16,
  kBf16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64,
};
std::string_view name(Dtype dtype);  // as the file spells it: "BF16"
int64_t bytes_of(Dtype dtype);

// "[3, 128]"
std::string describe_shape(std::span<const int64_t> shape);

struct TensorEntry {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
  int64_t begin = 0;  // bytes of the data section: [begin, end)
  int64_t end = 0;

  int64_t bytes() const { return end - begin; }
};

// The tensors of a header, ascending by position. `data_bytes`: size of the data section. Messages
// name the tensor.
Result<std::vector<TensorEntry>> parse_safetensors_header(std::string_view header,
                                                          int64_t data_bytes);

class SafetensorsFile {
 public:
  // Reads and checks the header; messages begin with the file's name (without its folder).
  static Result<SafetensorsFile> open(const std::string& path);

  const std::string& name() const { return name_; }

  const std::vector<TensorEntry>& tensors() const { return tensors_; }

  // xxh64 of the header's bytes.
  uint64_t header_hash() const { return header_hash_; }

  int64_t file_bytes() const { return file_.size(); }

  int64_t data_begin() const { return data_begin_; }

  // Fills `out` with bytes [offset, offset + out.size()) of the tensor. Must lie within it
  // (checked).
  Status read(const TensorEntry& tensor, int64_t offset, std::span<std::byte> out) const;
  // Bytes of the data section at `offset`, for fingerprints.
  Status read_data(int64_t offset, std::span<std::byte> out) const;

 private:
  SafetensorsFile(File file, std::string name) : file_(std::move(file)), name_(std::move(name)) {}

  File file_;
  std::string name_;
  std::vector<TensorEntry> tensors_;
  uint64_t header_hash_ = 0;
  int64_t data_begin_ = 0;
};

}  // namespace wideep::model
