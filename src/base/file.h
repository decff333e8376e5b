// Files, read with limits and positions checked.
#pragma once

#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace wideep {

// A file open for reading at positions. Thread-safe.
class File {
 public:
  // kNotFound if it does not exist, kInvalidArgument if it may not be opened or is no regular file,
  // else kUnavailable.
  static Result<File> open(const std::string& path);
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int64_t size() const { return size_; }

  const std::string& path() const { return path_; }

  int descriptor() const { return fd_; }

  // Fills `out` from `offset`. kDataLoss if the file ends first.
  Status read_at(int64_t offset, std::span<std::byte> out) const;

 private:
  File(int fd, int64_t size, std::string path) : fd_(fd), size_(size), path_(std::move(path)) {}

  int fd_;
  int64_t size_;
  std::string path_;
};

// The whole file; kExhausted if it is larger than `bytes_max`.
Result<std::string> read_file(const std::string& path, int64_t bytes_max);

// The whole of a file that holds a secret; kInvalidArgument if others than its owner may read it. A
// file of root may be readable by its group: so Kubernetes hands secrets to who is not root.
Result<std::string> read_secret(const std::string& path, int64_t bytes_max);

// Writes to a temporary name beside `path` and renames it, so that readers see all or nothing.
Status write_file(const std::string& path, std::string_view content);

// The file of the program that runs.
Result<std::string> program_path();

}  // namespace wideep
