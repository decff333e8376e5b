#include "cmd/progress.h"

#include "base/options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

namespace wideep::cmd {
namespace {

constexpr int kBarWidth = 24;

double seconds_since(TimePoint start) {
  return std::chrono::duration<double>(real_clock().now() - start).count();
}

void write_stderr(const std::string& text) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace

std::string bytes_text(double bytes) {
  if (bytes >= 1e9) return fmt::format("{:.1f} GB", bytes / 1e9);
  if (bytes >= 1e6) return fmt::format("{:.0f} MB", bytes / 1e6);
  return fmt::format("{:.0f} kB", bytes / 1e3);
}

std::string duration_text(double seconds) {
  if (seconds < 60) return fmt::format("{:.0f} s", seconds);
  const auto whole = static_cast<int64_t>(seconds);
  return fmt::format("{} min {:02} s", whole / 60, whole % 60);
}

Progress::Progress(std::string what, std::string unit)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      is_terminal_(isatty(STDERR_FILENO) == 1 && !environment_variable("NO_COLOR")),
      start_(real_clock().now()),
      last_shown_(start_) {}

Progress::~Progress() {
  if (is_terminal_ && shown_) write_stderr("\r\x1b[K");
}

void Progress::update(int64_t done, int64_t total, const std::string& note) {
  const std::scoped_lock lock(mutex_);
  const Duration interval =
      is_terminal_ ? Duration(std::chrono::milliseconds(100)) : std::chrono::seconds(5);
  const TimePoint now = real_clock().now();
  if (now - last_shown_ < interval) return;
  last_shown_ = now;
  shown_ = true;
  write_stderr(is_terminal_ ? "\r\x1b[K" + line(done, total, note)
                            : line(done, total, note) + "\n");
}

std::string Progress::line(int64_t done, int64_t total, const std::string& note) const {
  const double elapsed = std::max(seconds_since(start_), 1e-3);
  const double rate = static_cast<double>(done) / elapsed;
  const auto count = [&](double value) {
    return unit_ == "B" ? bytes_text(value) : fmt::format("{:.0f} {}", value, unit_);
  };
  std::string text = what_;
  if (total > 0) {
    const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    const int filled = static_cast<int>(share * kBarWidth);
    text +=
        fmt::format(" [{}{}] {:3.0f} %  {} of {}", std::string(static_cast<size_t>(filled), '#'),
                    std::string(static_cast<size_t>(kBarWidth - filled), '.'), share * 100,
                    count(static_cast<double>(done)), count(static_cast<double>(total)));
  } else {
    text += " " + count(static_cast<double>(done));
  }
  text += fmt::format("  {}/s", count(rate));
  if (total > done && rate > 0) {
    text += fmt::format("  {} left", duration_text(static_cast<double>(total - done) / rate));
  }
  return note.empty() ? text : text + "  " + note;
}

}  // namespace wideep::cmd
