#include "launcher/run_folder.h"

#include "base/log.h"
#include "base/options.h"
#include "base/random.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

namespace wideep::launcher {
namespace {

constexpr std::string_view kPrefix = "wideep-up-";
constexpr const char* kLockName = "/lock";

std::unexpected<Error> failed(const std::string& path) {
  return error(ErrorCode::kUnavailable, "{}: {}", path, strerrordesc_np(errno));
}

// The descriptor of the locked file, or -1 if there is none or somebody else has it.
int lock(const std::string& folder, int flags) {
  const int descriptor = open((folder + kLockName).c_str(), flags | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor < 0) return -1;
  if (flock(descriptor, LOCK_EX | LOCK_NB) == 0) return descriptor;
  close(descriptor);
  return -1;
}

void remove_what_nobody_owns(const std::string& parent) {
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator(parent, code)) {
    const std::string path = entry.path();
    struct stat status{};
    if (!entry.path().filename().string().starts_with(kPrefix)) continue;
    if (lstat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode) || status.st_uid != geteuid())
      continue;
    const int descriptor = lock(path, 0);
    if (descriptor < 0) continue;
    log_info("{}: left behind by a deployment that was killed; removed", path);
    std::filesystem::remove_all(path, code);
    close(descriptor);
  }
}

}  // namespace

std::string run_folder_parent() {
  if (const auto folder = environment_variable("XDG_RUNTIME_DIR")) return *folder;
  std::error_code problem;
  const auto temporary = std::filesystem::temp_directory_path(problem);
  return problem ? "/tmp" : temporary.string();
}

Result<RunFolder> RunFolder::create(const std::string& parent) {
  remove_what_nobody_owns(parent);
  // Another deployment may take a folder that is not locked yet for a dead one: then a new one.
  constexpr int kAttempts = 10;
  for (int i = 0; i < kAttempts; ++i) {
    std::string path = fmt::format("{}/{}XXXXXX", parent, kPrefix);
    if (mkdtemp(path.data()) == nullptr) return failed(parent);
    if (const int descriptor = lock(path, O_CREAT); descriptor >= 0)
      return RunFolder(std::move(path), descriptor);
  }
  return error(ErrorCode::kUnavailable, "{}: no folder of our own can be made", parent);
}

RunFolder::RunFolder(RunFolder&& other) noexcept
    : path_(std::move(other.path_)), lock_(std::exchange(other.lock_, -1)) {}

RunFolder::~RunFolder() {
  if (lock_ < 0) return;
  std::error_code code;
  std::filesystem::remove_all(path_, code);
  if (code) log_warning("{}: {}", path_, code.message());
  close(lock_);
}

Result<std::string> RunFolder::make_secret(const std::string& name,
                                           std::string_view content) const {
  std::string path = path_ + "/" + name;
  const int descriptor = open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  if (descriptor < 0) return failed(path);
  const bool is_written =
      write(descriptor, content.data(), content.size()) == static_cast<ssize_t>(content.size());
  close(descriptor);
  if (!is_written) return failed(path);
  return path;
}

Result<std::string> RunFolder::make_key(const std::string& name) const {
  std::string text;
  for (int i = 0; i < 4; ++i)
    text += fmt::format("{:016x}", random_device_bits());
  return make_secret(name, text + "\n");
}

}  // namespace wideep::launcher
