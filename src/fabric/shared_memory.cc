#include "fabric/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace wideep::fabric {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

std::unexpected<Error> failed(std::string_view what) {
  return error(ErrorCode::kExhausted, "shared memory: {}: {}", what, strerrordesc_np(errno));
}

// Huge pages where the machine allows them for shared memory
// (/sys/kernel/mm/transparent_hugepage/shmem_enabled: advise).
Result<std::byte*> map_shared(int fd, size_t bytes, int protection) {
  void* data = mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return failed("map");
  madvise(data, bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(data);
}

}  // namespace

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : fd_(std::move(other.fd_)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Result<SharedMemory> SharedMemory::create(const std::string& name,
                                          int64_t bytes,
                                          const SharedMemoryOptions& options) {
  UniqueFd fd(memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return failed("create");
  if (ftruncate(fd.get(), bytes) != 0) return failed("size");
  WD_ASSIGN_OR_RETURN(std::byte * data,
                      map_shared(fd.get(), static_cast<size_t>(bytes), PROT_READ | PROT_WRITE));
  SharedMemory memory(std::move(fd), data, static_cast<size_t>(bytes));
  // Our own mapping is there already: only later ones are read-only then.
  const int seals = kSeals | (options.others_may_write ? 0 : F_SEAL_FUTURE_WRITE);
  if (fcntl(memory.fd(), F_ADD_SEALS, seals) != 0) return failed("seal");
  if (options.populate) WD_TRY(memory.populate());
  return memory;
}

// Pages now rather than in a step; a machine without room says so here.
Status SharedMemory::populate() {
  if (madvise(data_, bytes_, MADV_POPULATE_WRITE) != 0 && errno != EINVAL)
    return failed("populate");
  return {};
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
  WD_ASSIGN_OR_RETURN(std::byte * data,
                      map_shared(fd.get(), static_cast<size_t>(bytes), protection));
  return SharedMemory(std::move(fd), data, static_cast<size_t>(bytes));
}

}  // namespace wideep::fabric
