#include "model/weight_cache.h"

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/rounding.h"
#include "model/cache_folder.h"
#include "model/loaders.h"
#include "model/numeric_config.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

namespace wideep::model {
namespace {

constexpr uint64_t kMagic = 0x3145484341434457;  // "WDCACHE1"
constexpr int64_t kAlignment = 4096;

// All numbers little-endian.
struct Header {
  uint64_t magic = kMagic;
  std::array<std::byte, 32> key{};
  int64_t num_items = 0;
  int64_t data_begin = 0;
  uint64_t table_checksum = 0;
};

static_assert(sizeof(Header) == 64);

struct TableEntry {
  int64_t arena = 0;
  int64_t arena_offset = 0;
  int64_t file_offset = 0;
  int64_t bytes = 0;
  uint64_t checksum = 0;
};

static_assert(sizeof(TableEntry) == 40);

// Where every item lies in the file: in the order of the plan, each at a multiple of 64.
std::vector<TableEntry> lay_out(const WeightPlan& plan) {
  const auto count = static_cast<int64_t>(plan.items().size());
  int64_t offset = round_up(
      static_cast<int64_t>(sizeof(Header)) + count * static_cast<int64_t>(sizeof(TableEntry)),
      kAlignment);
  std::vector<TableEntry> table;
  table.reserve(plan.items().size());
  for (const Place& place : plan.items()) {
    table.push_back({.arena = static_cast<int64_t>(place.arena),
                     .arena_offset = place.offset,
                     .file_offset = offset,
                     .bytes = place.bytes});
    offset += round_up(place.bytes, 64);
  }
  return table;
}

int64_t file_bytes(const std::vector<TableEntry>& table) {
  return table.back().file_offset + round_up(table.back().bytes, 64);
}

// Runs body(item) on all threads and adds up the bytes; keeps the first failure.
class ItemLoop {
 public:
  ItemLoop(const WeightPlan& plan, ThreadPool& pool, const CacheProgress& progress, int64_t total)
      : plan_(plan), pool_(pool), progress_(progress), total_(total) {}

  Status run(FunctionRef<Status(size_t item)> body) {
    for_each_loaded(pool_, static_cast<int64_t>(plan_.items().size()), [&](int64_t i, int) {
      const auto item = static_cast<size_t>(i);
      if (failed_) return;
      Status status = body(item);
      const std::scoped_lock lock(mutex_);
      if (status) {
        done_ += plan_.items()[item].bytes;
        if (progress_) status = progress_(done_, total_);
      }
      if (!status) {
        if (!failed_) status_ = status;
        failed_ = true;
      }
    });
    return status_;
  }

 private:
  const WeightPlan& plan_;
  ThreadPool& pool_;
  const CacheProgress& progress_;
  int64_t total_;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;
  int64_t done_ = 0;
  Status status_;
};

// A file that vanishes unless it is committed under its real name.
class NewFile {
 public:
  static Result<NewFile> create(const std::string& path) {
    NewFile file;
    file.path_ = path;
    file.temporary_ = fmt::format("{}.tmp{}", path, getpid());
    file.fd_ = ::open(file.temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file.fd_ < 0) return file.failed("cannot create");
    flock(file.fd_, LOCK_EX);  // so that nobody takes it for a leftover (cache_folder.h)
    return file;
  }

  NewFile(NewFile&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)),
        path_(std::move(other.path_)),
        temporary_(std::move(other.temporary_)) {}

  NewFile& operator=(NewFile&&) = delete;

  ~NewFile() {
    if (fd_ < 0) return;
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }

  Status check_room(int64_t bytes) const {
    struct statvfs disk{};
    if (fstatvfs(fd_, &disk) != 0) return failed("cannot stat the disk");
    const auto room = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
    if (room >= bytes + bytes / 16) return {};
    return error(ErrorCode::kExhausted, "{}: {} bytes wanted, the disk has {}", path_, bytes, room);
  }

  Status write_at(int64_t offset, std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t count = pwrite(fd_, bytes.data(), bytes.size(), offset);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return failed("cannot write");
      bytes = bytes.subspan(static_cast<size_t>(count));
      offset += count;
    }
    return {};
  }

  Status commit() {
    if (fsync(fd_) != 0) return failed("cannot sync");
    if (rename(temporary_.c_str(), path_.c_str()) != 0) return failed("cannot rename");
    ::close(std::exchange(fd_, -1));
    return {};
  }

 private:
  NewFile() = default;

  std::unexpected<Error> failed(std::string_view what) const {
    return error(ErrorCode::kUnavailable, "{}: {}: {}", temporary_, what, strerrordesc_np(errno));
  }

  int fd_ = -1;
  std::string path_;
  std::string temporary_;
};

std::unexpected<Error> broken(const std::string& path, std::string_view what) {
  return error(ErrorCode::kDataLoss, "{}: {}", path, what);
}

// The table of a file, compared with the one that is expected.
Result<std::vector<TableEntry>> read_table(const File& file,
                                           const Digest& key,
                                           const WeightPlan& plan) {
  std::vector<TableEntry> table = lay_out(plan);
  Header header;
  if (file.size() != file_bytes(table)) return broken(file.path(), "another size");
  WD_TRY(file.read_at(0, std::as_writable_bytes(std::span(&header, 1))));
  if (header.magic != kMagic) return broken(file.path(), "no cache of packed weights");
  if (header.key != key) return broken(file.path(), "another key");
  if (header.num_items != static_cast<int64_t>(table.size())) {
    return broken(file.path(), "another number of items");
  }
  const std::vector<TableEntry> expected = table;
  WD_TRY(file.read_at(sizeof header, std::as_writable_bytes(std::span(table))));
  if (xxh64(std::as_bytes(std::span(table))) != header.table_checksum) {
    return broken(file.path(), "the checksum of the table differs");
  }
  for (size_t i = 0; i < table.size(); ++i) {
    TableEntry entry = table[i];
    entry.checksum = 0;
    if (std::memcmp(&entry, &expected[i], sizeof entry) != 0) {
      return broken(file.path(), fmt::format("item {} lies elsewhere", i));
    }
  }
  return table;
}

}  // namespace

Result<WeightCacheFile> weight_cache_file(const Checkpoint& checkpoint,
                                          const WeightOptions& options,
                                          const WeightPlan& plan) {
  std::string text = fmt::format(
      "wideep cache 1 kernels {} precision {} experts {} linears {} draft {} dense {} expert {}\n",
      kKernelRevision, static_cast<int>(options.precision),
      options.expert_format ? math::name(*options.expert_format) : "stored",
      options.linear_format ? math::name(*options.linear_format) : "stored", options.draft,
      plan.dense_bytes(), plan.expert_bytes());
  for (const auto& file : checkpoint.files()) {
    struct stat status{};
    const std::string path = fmt::format("{}/{}", checkpoint.folder(), file->name());
    if (stat(path.c_str(), &status) != 0) {
      return error(ErrorCode::kUnavailable, "{}: cannot stat: {}", path, strerrordesc_np(errno));
    }
    text += fmt::format("{} {} {}.{:09} {:016x}\n", file->name(), file->file_bytes(),
                        status.st_mtim.tv_sec, status.st_mtim.tv_nsec, file->header_hash());
  }
  for (const PackTask& task : plan.tasks()) {
    if (task.kind != PackTask::Kind::kExpert) continue;
    text += fmt::format("{}:{}@{} ", task.layer, task.expert, task.place.offset);
  }
  const Digest key = sha256(std::as_bytes(std::span(text)));
  return WeightCacheFile{
      .path = fmt::format("{}/{}{}", options.cache_dir, to_hex(key, 32), kCacheSuffix), .key = key};
}

int64_t weight_cache_bytes(const WeightPlan& plan) {
  return file_bytes(lay_out(plan));
}

Status read_weight_cache(const WeightCacheFile& cache,
                         const WeightPlan& plan,
                         ModelWeights& weights,
                         ThreadPool& pool,
                         const CacheProgress& progress) {
  WD_ASSIGN_OR_RETURN(const File file, File::open(cache.path));
  WD_ASSIGN_OR_RETURN(const std::vector<TableEntry> table, read_table(file, cache.key, plan));
  return ItemLoop(plan, pool, progress, file.size()).run([&](size_t item) -> Status {
    const std::span<std::byte> bytes = bytes_at(weights, plan.items()[item]);
    WD_TRY(file.read_at(table[item].file_offset, bytes));
    if (xxh64(bytes) != table[item].checksum) {
      return broken(cache.path, fmt::format("the checksum of item {} differs", item));
    }
    return {};
  });
}

Status write_weight_cache(const WeightCacheFile& cache,
                          const WeightPlan& plan,
                          ModelWeights& weights,
                          ThreadPool& pool,
                          const CacheProgress& progress) {
  std::vector<TableEntry> table = lay_out(plan);
  const int64_t total = file_bytes(table);
  WD_ASSIGN_OR_RETURN(NewFile file, NewFile::create(cache.path));
  WD_TRY(file.check_room(total));
  WD_TRY(ItemLoop(plan, pool, progress, total).run([&](size_t item) -> Status {
    const std::span<const std::byte> bytes = bytes_at(weights, plan.items()[item]);
    table[item].checksum = xxh64(bytes);
    return file.write_at(table[item].file_offset, bytes);
  }));
  const auto table_bytes = std::as_bytes(std::span(table));
  const Header header{.key = cache.key,
                      .num_items = static_cast<int64_t>(table.size()),
                      .data_begin = table.front().file_offset,
                      .table_checksum = xxh64(table_bytes)};
  WD_TRY(file.write_at(sizeof header, table_bytes));
  WD_TRY(file.write_at(0, std::as_bytes(std::span(&header, 1))));
  // The padding behind the last item belongs to the file's size.
  const int64_t tail = total - table.back().file_offset - table.back().bytes;
  const std::vector<std::byte> zeros(static_cast<size_t>(tail));
  WD_TRY(file.write_at(total - tail, zeros));
  return file.commit();
}

}  // namespace wideep::model
