// Memory that processes of a host share by handing over a descriptor: an anonymous file, sealed so
// that nobody can shrink it under a reader's feet. Thread: any, one at a time.
#pragma once

#include "base/result.h"
#include "fabric/unique_fd.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace wideep::fabric {

struct SharedMemoryOptions {
  bool populate = true;          // every page touched now
  bool others_may_write = true;  // false: whoever it is handed to can only map it for reading
};

class SharedMemory {
 public:
  SharedMemory() = default;
  ~SharedMemory();
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;

  // New and zero. `name` shows in /proc.
  static Result<SharedMemory> create(const std::string& name,
                                     int64_t bytes,
                                     const SharedMemoryOptions& options = {});
  // Somebody else's, from its descriptor. kInvalidArgument unless it is sealed and has `bytes`.
  static Result<SharedMemory> map(UniqueFd fd, int64_t bytes);

  // The same for reading only: writing to its bytes() ends the process.
  static Result<SharedMemory> map_read_only(UniqueFd fd, int64_t bytes);

  // Touches every page now; most of them are huge pages (2 MiB) where the machine has such. The
  // memory must be mapped for writing. kExhausted: the machine has no room.
  Status populate();

  std::span<std::byte> bytes() { return bytes_; }

  std::span<const std::byte> bytes() const { return bytes_; }

  int fd() const { return fd_.get(); }

 private:
  static Result<SharedMemory> map_sealed(UniqueFd fd, int64_t bytes, int protection);

  SharedMemory(UniqueFd fd, std::span<std::byte> mapped, size_t bytes)
      : fd_(std::move(fd)), mapped_(mapped), bytes_(mapped.first(bytes)) {}

  UniqueFd fd_;
  std::span<std::byte> mapped_;  // bytes_, up to the end of a huge page
  std::span<std::byte> bytes_;
};

}  // namespace wideep::fabric
