// Memory that the step reads and writes. All of it is taken at start: on a virtual machine the
// first touch of a page costs more than the work on it, so nothing on the step path allocates.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

namespace wideep {

inline constexpr size_t kHugePage = size_t{2} << 20;

// Room for `bytes` in whole huge pages, at a multiple of them: private zeroed memory, none of it
// taken yet. Empty where there is no room. The caller unmaps all of it.
std::span<std::byte> map_huge_aligned(size_t bytes);

// Zeroed anonymous memory, 64-byte aligned; from 2 MiB on it is 2-MiB aligned and asks for huge
// pages. Never a mapped file: the kernel cannot page it out where there is no swap. Aborts when
// memory is gone.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes);
  ~AlignedBuffer();

  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;

  std::byte* data() { return data_; }

  const std::byte* data() const { return data_; }

  size_t size() const { return bytes_; }

  std::span<std::byte> bytes() { return {data_, bytes_}; }

  std::span<const std::byte> bytes() const { return {data_, bytes_}; }

  // Touches every page now, so that no step pays for it.
  void prefault();

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

// Bytes of memory the process may still take without harm: the least of the machine's available
// memory and what its control group leaves.
size_t available_memory_bytes();

}  // namespace wideep
