#include "fabric/shared_memory.h"

#include "base/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace wideep::fabric {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

constexpr int kCollapse = 25;  // MADV_COLLAPSE, which this C library does not name

std::unexpected<Error> failed(std::string_view what) {
  return error(ErrorCode::kExhausted, "shared memory: {}: {}", what, strerrordesc_np(errno));
}

// At a multiple of the huge page: elsewhere one of the file could not be mapped as one.
Result<std::span<std::byte>> map_shared(int fd, size_t bytes, int protection) {
  const std::span<std::byte> room = map_huge_aligned(bytes);
  if (room.empty()) return failed("reserve");
  if (mmap(room.data(), bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
    const auto failure = failed("map");
    munmap(room.data(), room.size());
    return failure;
  }
  madvise(room.data(), bytes, MADV_HUGEPAGE);
  return room;
}

Status touch(std::span<std::byte> bytes) {
  if (madvise(bytes.data(), bytes.size(), MADV_POPULATE_WRITE) != 0 && errno != EINVAL)
    return failed("populate");
  return {};
}

}  // namespace

SharedMemory::~SharedMemory() {
  if (!mapped_.empty()) munmap(mapped_.data(), mapped_.size());
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : fd_(std::move(other.fd_)),
      mapped_(std::exchange(other.mapped_, {})),
      bytes_(std::exchange(other.bytes_, {})) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(mapped_, other.mapped_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Result<SharedMemory> SharedMemory::create(const std::string& name,
                                          int64_t bytes,
                                          const SharedMemoryOptions& options) {
  UniqueFd fd(memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return failed("create");
  if (ftruncate(fd.get(), bytes) != 0) return failed("size");
  const auto size = static_cast<size_t>(bytes);
  WD_ASSIGN_OR_RETURN(const std::span<std::byte> mapped,
                      map_shared(fd.get(), size, PROT_READ | PROT_WRITE));
  SharedMemory memory(std::move(fd), mapped, size);
  // Our own mapping is there already: only later ones are read-only then.
  const int seals = kSeals | (options.others_may_write ? 0 : F_SEAL_FUTURE_WRITE);
  if (fcntl(memory.fd(), F_ADD_SEALS, seals) != 0) return failed("seal");
  if (options.populate) WD_TRY(memory.populate());
  return memory;
}

// Pages now rather than in a step; a machine without room says so here. Huge ones where they are to
// be had, whatever the machine's setting for shared memory (except "deny"): a range that has its
// first page is collapsed into one. The rest, all of it before Linux 6.1, gets small ones.
Status SharedMemory::populate() {
  for (size_t at = 0; at + kHugePage <= bytes_.size(); at += kHugePage) {
    WD_TRY(touch(bytes_.subspan(at, 1)));
    if (madvise(&bytes_[at], kHugePage, kCollapse) != 0 && errno != EAGAIN) break;
  }
  return touch(bytes_);
}

Result<SharedMemory> SharedMemory::map(UniqueFd fd, int64_t bytes) {
  WD_ASSIGN_OR_RETURN(SharedMemory memory,
                      map_sealed(std::move(fd), bytes, PROT_READ | PROT_WRITE));
  WD_TRY(memory.populate());
  return memory;
}

Result<SharedMemory> SharedMemory::map_read_only(UniqueFd fd, int64_t bytes) {
  return map_sealed(std::move(fd), bytes, PROT_READ);
}

Result<SharedMemory> SharedMemory::map_sealed(UniqueFd fd, int64_t bytes, int protection) {
  struct stat status{};
  if (fstat(fd.get(), &status) != 0 || status.st_size != bytes)
    return invalid_argument("shared memory of {} bytes was handed over, {} expected",
                            status.st_size, bytes);
  const int seals = fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals)
    return invalid_argument("shared memory was handed over unsealed");
  const auto size = static_cast<size_t>(bytes);
  WD_ASSIGN_OR_RETURN(const std::span<std::byte> mapped, map_shared(fd.get(), size, protection));
  return SharedMemory(std::move(fd), mapped, size);
}

}  // namespace wideep::fabric
