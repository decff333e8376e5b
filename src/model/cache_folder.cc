#include "model/cache_folder.h"

#include "base/log.h"

#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <filesystem>
#include <limits>
#include <system_error>
#include <vector>

namespace wideep::model {
namespace {

namespace fs = std::filesystem;

struct CacheFile {
  fs::path path;
  int64_t bytes = 0;
  fs::file_time_type used;
};

// Of all that can be looked at, the one longest unused first.
std::vector<CacheFile> list_files(const std::string& folder) {
  std::vector<CacheFile> files;
  std::error_code problem;
  for (fs::directory_iterator entry(folder, problem), end; !problem && entry != end;
       entry.increment(problem)) {
    if (!entry->path().filename().string().contains(kCacheSuffix)) continue;
    std::error_code vanished;
    const auto bytes = static_cast<int64_t>(entry->file_size(vanished));
    const fs::file_time_type used =
        vanished ? fs::file_time_type() : entry->last_write_time(vanished);
    if (!vanished) files.push_back({entry->path(), bytes, used});
  }
  std::ranges::sort(files, {}, &CacheFile::used);
  return files;
}

bool is_temporary(const fs::path& path) {
  return path.extension() != kCacheSuffix;
}

// False if it is in use.
bool remove_unused(const CacheFile& cached) {
  const auto file = File::open(cached.path);
  if (!file || flock(file->descriptor(), LOCK_EX | LOCK_NB) != 0) return false;
  if (::unlink(cached.path.c_str()) != 0) return false;
  log_info("{}: removed from the cache of packed weights", cached.path.string());
  return true;
}

int64_t half_of_disk(const std::string& folder) {
  std::error_code problem;
  const fs::space_info disk = fs::space(folder, problem);
  return problem ? std::numeric_limits<int64_t>::max() : static_cast<int64_t>(disk.capacity / 2);
}

}  // namespace

Result<File> use_cache_file(const std::string& path) {
  WD_ASSIGN_OR_RETURN(File file, File::open(path));
  // Waits at most for somebody who is just removing it; a disk without locks cannot protect it.
  if (flock(file.descriptor(), LOCK_SH) != 0) log_warning("{}: cannot be locked", path);
  // Finer than the kernel's own "now". Another user's file keeps its time.
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const std::array times = {now, now};
  futimens(file.descriptor(), times.data());
  return file;
}

Status make_cache_room(const std::string& folder, int64_t bytes, int64_t bytes_max) {
  std::error_code problem;
  fs::create_directories(folder, problem);
  if (problem) return error(ErrorCode::kUnavailable, "{}: {}", folder, problem.message());
  const int64_t limit = bytes_max > 0 ? bytes_max : half_of_disk(folder);
  const std::vector<CacheFile> files = list_files(folder);
  int64_t held = 0;
  for (const CacheFile& file : files)
    held += file.bytes;
  for (const CacheFile& file : files) {
    if (!is_temporary(file.path) && (held + bytes <= limit || bytes > limit)) continue;
    if (remove_unused(file)) held -= file.bytes;
  }
  if (held + bytes <= limit) return {};
  return error(ErrorCode::kExhausted, "{}: {} bytes of packed weights, {} more are over {}", folder,
               held, bytes, limit);
}

}  // namespace wideep::model
