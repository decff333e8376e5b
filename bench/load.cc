// How fast weights come into memory, against the disk and the memory of the same run.
//
//   load_bench DIR CACHE_DIR [--threads N] [--rounds N]
//
// DIR is a checkpoint, e.g. of `wideep make-checkpoint ds2 DIR`; CACHE_DIR is where its packed
// weights are kept. "cold": the page cache holds nothing of the files; "warm": all of it. "raw"
// reads the same bytes past the page cache and throws them away; "clear" takes as much new memory
// as the weights need and touches it. Prints JSON; rates are bytes of the files per second.
#include "base/memory.h"
#include "command_line.h"
#include "model/weights.h"
#include "rounds.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace wideep::bench {
namespace {

constexpr int64_t kPieceBytes = int64_t{8} << 20;

struct Options {
  std::string folder;
  std::string cache_folder;
  int32_t threads = 2;
  int32_t rounds = 5;
};

struct DataFile {
  std::string path;
  int64_t bytes = 0;
};

std::vector<DataFile> data_files(const std::string& folder) {
  std::vector<DataFile> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string extension = entry.path().extension();
    if (extension == ".safetensors" || extension == ".wdcache")
      files.push_back({entry.path(), static_cast<int64_t>(entry.file_size())});
  }
  return files;
}

double total_bytes(const std::vector<DataFile>& files) {
  double total = 0;
  for (const DataFile& file : files)
    total += static_cast<double>(file.bytes);
  return total;
}

void evict(const std::vector<DataFile>& files) {
  for (const DataFile& file : files) {
    const int fd = open(file.path.c_str(), O_RDONLY | O_CLOEXEC);
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
  }
}

// Brings the files into the page cache.
void fill(const std::vector<DataFile>& files) {
  std::vector<std::byte> buffer(size_t{1} << 19);
  for (const DataFile& file : files) {
    const int fd = open(file.path.c_str(), O_RDONLY | O_CLOEXEC);
    while (read(fd, buffer.data(), buffer.size()) > 0) {
    }
    close(fd);
  }
}

void read_raw(const std::vector<DataFile>& files, ThreadPool& pool) {
  std::vector<AlignedBuffer> buffers;
  for (int i = 0; i < pool.num_threads(); ++i)
    buffers.emplace_back(static_cast<size_t>(kPieceBytes));
  for (const DataFile& file : files) {
    const int fd = open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
    pool.for_each((file.bytes + kPieceBytes - 1) / kPieceBytes, [&](int64_t piece, int thread) {
      AlignedBuffer& buffer = buffers[static_cast<size_t>(thread)];
      if (pread(fd, buffer.data(), buffer.size(), piece * kPieceBytes) <= 0) std::abort();
    });
    close(fd);
  }
}

class LoadBench {
 public:
  LoadBench(const Options& options, model::Checkpoint checkpoint)
      : options_(options),
        checkpoint_(std::move(checkpoint)),
        pool_({.num_threads = options.threads}) {}

  void run() {
    load(options_.cache_folder);  // writes the packed weights, if they are not there yet
    add_cases("pack", data_files(options_.folder), "");
    add_cases("cache", data_files(options_.cache_folder), options_.cache_folder);
    cases_.push_back({.name = "clear", .work = weight_bytes_, .unit = "GB/s", .run = [this] {
                        AlignedBuffer(static_cast<size_t>(weight_bytes_)).prefault();
                      }});
    run_rounds(cases_, options_.rounds);
    std::erase_if(cases_, [](const Case& c) { return c.name == "evict" || c.name == "fill"; });
    fmt::print("{}", to_json(cases_, fmt::format("{:.2f} GB of weights, {} threads",
                                                 weight_bytes_ / 1e9, options_.threads)));
  }

 private:
  void add_cases(const std::string& kind,
                 const std::vector<DataFile>& files,
                 const std::string& cache_folder) {
    const double bytes = total_bytes(files);
    const auto add = [&](const std::string& name, const std::string& yardstick, auto body) {
      cases_.push_back(
          {.name = name, .work = bytes, .unit = "GB/s", .yardstick = yardstick, .run = body});
    };
    const auto load_case = [this, cache_folder] { load(cache_folder); };
    const auto evict_case = [files] { evict(files); };
    add("evict", "", evict_case);
    add(kind + " raw", "", [this, files] { read_raw(files, pool_); });
    add("evict", "", evict_case);
    add(kind + " cold", kind + " raw", load_case);
    // Once before it counts: on a virtual machine the first touch of memory that others have had
    // meanwhile is the host's time.
    add("fill", "", [files, load_case] {
      fill(files);
      load_case();
    });
    add(kind + " warm", kind + " raw", load_case);
  }

  void load(const std::string& cache_folder) {
    const auto weights = model::load_weights(checkpoint_, {.cache_dir = cache_folder}, pool_);
    if (!weights) {
      fmt::print(stderr, "{}\n", weights.error().message);
      std::exit(1);
    }
    weight_bytes_ = static_cast<double>(weights->dense_arena.size() + weights->expert_arena.size());
  }

  const Options options_;
  const model::Checkpoint checkpoint_;
  ThreadPool pool_;
  double weight_bytes_ = 0;
  std::vector<Case> cases_;
};

int run(int argc, char** argv) {
  Options options;
  CommandLine command("load_bench", "How fast weights come into memory.");
  command.add_positional("DIR", &options.folder, "A checkpoint.", true);
  command.add_positional("CACHE_DIR", &options.cache_folder, "For its packed weights.", true);
  command.add_threads(&options.threads);
  command.add_rounds(&options.rounds);
  if (const auto status = command.parse(argc, argv)) return *status;
  auto checkpoint = model::Checkpoint::open(options.folder, {});
  if (!checkpoint) {
    fmt::print(stderr, "{}\n", checkpoint.error().message);
    return 1;
  }
  LoadBench(options, *std::move(checkpoint)).run();
  return 0;
}

}  // namespace
}  // namespace wideep::bench

int main(int argc, char** argv) {
  return wideep::bench::run(argc, argv);
}
