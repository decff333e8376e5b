#include "base/memory.h"

#include "base/check.h"
#include "base/rounding.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

namespace wideep {
namespace {

bool is_mapped(size_t bytes) {
  return bytes >= kHugePage;
}

size_t in_huge_pages(size_t bytes) {
  return round_up(bytes, kHugePage);
}

size_t read_number(const char* path, size_t fallback) {
  std::ifstream file(path);
  size_t value = 0;
  return file >> value ? value : fallback;
}

}  // namespace

std::span<std::byte> map_huge_aligned(size_t bytes) {
  const size_t wanted = in_huge_pages(bytes);
  const size_t reserved = wanted + kHugePage;
  void* base = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return {};
  const size_t in_front = (kHugePage - reinterpret_cast<uintptr_t>(base) % kHugePage) % kHugePage;
  auto* const aligned = static_cast<std::byte*>(base) + in_front;
  if (in_front > 0) munmap(base, in_front);
  munmap(aligned + wanted, kHugePage - in_front);
  return {aligned, wanted};
}

AlignedBuffer::AlignedBuffer(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  if (is_mapped(bytes)) {
    const std::span<std::byte> mapped = map_huge_aligned(bytes);
    WD_CHECK(!mapped.empty());
    data_ = mapped.data();
    madvise(data_, mapped.size(), MADV_HUGEPAGE);
    return;
  }
  const size_t padded = round_up(bytes, 64);
  data_ = static_cast<std::byte*>(std::aligned_alloc(64, padded));
  WD_CHECK(data_ != nullptr);
  std::memset(data_, 0, padded);
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ == nullptr) return;
  if (is_mapped(bytes_)) {
    munmap(data_, in_huge_pages(bytes_));
  } else {
    std::free(data_);
  }
}

void AlignedBuffer::prefault() {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (size_t offset = 0; offset < bytes_; offset += page) {
    auto* touched = reinterpret_cast<volatile std::byte*>(data_ + offset);
    *touched = *touched;
  }
}

size_t available_memory_bytes() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  size_t kib = 0;
  std::string unit;
  size_t available = SIZE_MAX;
  while (meminfo >> key >> kib) {
    std::getline(meminfo, unit);
    if (key == "MemAvailable:") available = kib * 1024;
  }
  const size_t limit =
      std::min(read_number("/sys/fs/cgroup/memory.max", SIZE_MAX),
               read_number("/sys/fs/cgroup/memory/memory.limit_in_bytes", SIZE_MAX));
  const size_t used = std::min(read_number("/sys/fs/cgroup/memory.current", 0),
                               read_number("/sys/fs/cgroup/memory/memory.usage_in_bytes", 0));
  return std::min(available, limit > used ? limit - used : 0);
}

}  // namespace wideep
