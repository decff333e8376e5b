#include "base/log.h"

#include <fmt/chrono.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>

namespace wideep {
namespace {

std::atomic<LogLevel> current_level{LogLevel::kInfo};
std::mutex name_mutex;
std::string process_name;  // guarded by name_mutex

void append_escaped(std::string& out, std::string_view message) {
  for (const char c : message) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
}

}  // namespace

void set_log_level(LogLevel level) {
  current_level.store(level, std::memory_order_relaxed);
}

bool log_enabled(LogLevel level) {
  return level >= current_level.load(std::memory_order_relaxed);
}

void set_log_name(std::string_view name) {
  const std::scoped_lock lock(name_mutex);
  process_name = name;
}

void log_line(LogLevel level, std::string_view message) {
  const auto now = std::chrono::system_clock::now();
  const auto millis =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::string line =
      fmt::format("{:%H:%M:%S}.{:03} {} ", fmt::gmtime(std::chrono::system_clock::to_time_t(now)),
                  millis, "DIWE"[static_cast<int>(level)]);
  {
    const std::scoped_lock lock(name_mutex);
    if (!process_name.empty()) line += process_name + ": ";
  }
  append_escaped(line, message);
  line += '\n';
  // One write per line, so that lines of several processes do not mix.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace wideep
