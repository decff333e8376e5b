#include "base/file.h"

#include "base/memory.h"
#include "base/rounding.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

namespace wideep {
namespace {

// From here on what the page cache has not is read past it, a piece at a time: no pages are filled
// that nobody reads again, and the disk sees few large requests.
constexpr size_t kDirectBytesMin = size_t{1} << 20;
constexpr size_t kPieceBytes = size_t{4} << 20;
constexpr size_t kPage = 4096;  // direct reads are aligned to it

std::string system_error_text() {
  return std::string(strerrordesc_np(errno));
}

// Whether the page cache has all of [offset, offset + bytes).
bool is_cached(int fd, int64_t offset, size_t bytes) {
  const int64_t begin = offset - offset % static_cast<int64_t>(kPage);
  const size_t length = bytes + static_cast<size_t>(offset - begin);
  void* const mapped = mmap(nullptr, length, PROT_READ, MAP_SHARED, fd, begin);
  if (mapped == MAP_FAILED) return true;
  thread_local std::vector<unsigned char> resident;
  resident.resize(length / kPage + 1);
  const bool is_known = mincore(mapped, length, resident.data()) == 0;
  munmap(mapped, length);
  const auto num_pages = static_cast<std::ptrdiff_t>(divide_up(length, kPage));
  return !is_known || std::all_of(resident.begin(), resident.begin() + num_pages,
                                  [](unsigned char page) { return (page & 1) != 0; });
}

// A descriptor of the same file for reads past the page cache; -1 where there are none.
int open_direct(int fd) {
  return ::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
}

// Fills the start of `out` and returns how much: all of it but where the file ends or direct reads
// fail. The caller reads the rest.
size_t read_direct(int fd, int64_t offset, std::span<std::byte> out) {
  thread_local AlignedBuffer piece;
  if (piece.size() == 0) piece = AlignedBuffer(kPieceBytes);
  const int direct = open_direct(fd);
  if (direct < 0) return 0;
  size_t done = 0;
  while (done < out.size()) {
    const int64_t wanted = offset + static_cast<int64_t>(done);
    const int64_t aligned = wanted - wanted % static_cast<int64_t>(kPage);
    const auto skipped = static_cast<size_t>(wanted - aligned);
    const size_t missing = skipped + out.size() - done;
    const size_t sectors = round_up(missing, kPage);
    const ssize_t got = pread(direct, piece.data(), std::min(sectors, piece.size()), aligned);
    if (got <= static_cast<ssize_t>(skipped)) break;
    const size_t count = std::min(static_cast<size_t>(got) - skipped, out.size() - done);
    std::memcpy(out.data() + done, piece.data() + skipped, count);
    done += count;
  }
  ::close(direct);
  return done;
}

// What is wrong with a path will be wrong again; that descriptors or memory are short may pass.
ErrorCode open_failure(int number) {
  switch (number) {
    case ENOENT:
      return ErrorCode::kNotFound;
    case EACCES:
    case EPERM:
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG:
      return ErrorCode::kInvalidArgument;
    default:
      return ErrorCode::kUnavailable;
  }
}

}  // namespace

Result<File> File::open(const std::string& path) {
  // O_NONBLOCK: a pipe without a writer must be refused below, not waited for here.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    return error(open_failure(errno), "{}: cannot open: {}", path, system_error_text());
  }
  struct stat status{};
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd);
    return invalid_argument("{}: not a regular file", path);
  }
  return File(fd, status.st_size, path);
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

File::File(File&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), size_(other.size_), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

Status File::read_at(int64_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  if (out.size() >= kDirectBytesMin && !is_cached(fd_, offset, out.size()))
    done = read_direct(fd_, offset, out);
  while (done < out.size()) {
    const ssize_t got =
        pread(fd_, out.data() + done, out.size() - done, offset + static_cast<int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return error(ErrorCode::kDataLoss, "{}: cannot read: {}", path_, system_error_text());
    }
    if (got == 0) {
      return error(ErrorCode::kDataLoss, "{}: ends at byte {}, {} bytes wanted at {}", path_,
                   offset + static_cast<int64_t>(done), out.size(), offset);
    }
    done += static_cast<size_t>(got);
  }
  return {};
}

namespace {

Result<std::string> read_all(const File& file, int64_t bytes_max) {
  if (file.size() > bytes_max) {
    return error(ErrorCode::kExhausted, "{}: {} bytes, at most {} allowed", file.path(),
                 file.size(), bytes_max);
  }
  std::string content(static_cast<size_t>(file.size()), '\0');
  WD_TRY(file.read_at(0, std::as_writable_bytes(std::span(content))));
  return content;
}

}  // namespace

Result<std::string> read_file(const std::string& path, int64_t bytes_max) {
  WD_ASSIGN_OR_RETURN(const File file, File::open(path));
  return read_all(file, bytes_max);
}

Result<std::string> read_secret(const std::string& path, int64_t bytes_max) {
  WD_ASSIGN_OR_RETURN(const File file, File::open(path));
  struct stat status{};
  if (fstat(file.descriptor(), &status) != 0)
    return error(ErrorCode::kUnavailable, "{}: {}", path, system_error_text());
  const mode_t group = status.st_uid == 0 && geteuid() != 0 ? S_IRGRP : 0;
  if ((status.st_mode & (S_IRWXG | S_IRWXO) & ~group) != 0)
    return invalid_argument("{}: others can read this secret; chmod 600 it", path);
  return read_all(file, bytes_max);
}

Status write_file(const std::string& path, std::string_view content) {
  const std::string temporary = fmt::format("{}.tmp{}", path, getpid());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) {
    return error(ErrorCode::kUnavailable, "{}: cannot create: {}", temporary, system_error_text());
  }
  while (!content.empty()) {
    const ssize_t written = write(fd, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) break;
    content.remove_prefix(static_cast<size_t>(written));
  }
  const bool closed = ::close(fd) == 0;
  if (!content.empty() || !closed || rename(temporary.c_str(), path.c_str()) != 0) {
    unlink(temporary.c_str());
    return error(ErrorCode::kUnavailable, "{}: cannot write: {}", path, system_error_text());
  }
  return {};
}

Result<std::string> program_path() {
  constexpr const char* kSelf = "/proc/self/exe";
  std::error_code problem;
  std::string path = std::filesystem::read_symlink(kSelf, problem).string();
  if (problem) return error(ErrorCode::kUnavailable, "{}: {}", kSelf, problem.message());
  return path;
}

}  // namespace wideep
