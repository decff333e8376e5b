#include "cmd/up_console.h"

#include "base/options.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace wideep::cmd {
namespace {

constexpr size_t kWidthFallback = 100;

size_t terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col
                                                                         : kWidthFallback;
}

void write_stderr(const std::string& text) {
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data() + done, text.size() - done);
    if (written <= 0) return;
    done += static_cast<size_t>(written);
  }
}

}  // namespace

UpConsole::UpConsole(std::string log_folder, bool show_lines)
    : log_folder_(std::move(log_folder)),
      show_lines_(show_lines),
      is_terminal_(isatty(STDERR_FILENO) == 1 && environment_variable("TERM") != "dumb") {}

UpConsole::~UpConsole() {
  const std::scoped_lock lock(mutex_);
  erase_block();
}

void UpConsole::line(const std::string& member, const std::string& text) {
  const std::scoped_lock lock(mutex_);
  Log& log = logs_[member];
  const std::string path = log_folder_ + "/" + member + ".log";
  if (!log.file.is_open()) log.file.open(path, std::ios::app);
  if (log.num_bytes > kFileBytesMax) {
    log.file.close();
    log.file.open(path, std::ios::trunc);
    log.num_bytes = 0;
  }
  log.file << text << '\n' << std::flush;
  log.num_bytes += static_cast<int64_t>(text.size()) + 1;
  log.tail.push_back(text);
  if (log.tail.size() > kTailLines) log.tail.pop_front();
  if (show_lines_) write(fmt::format("{:<18} | {}\n", member, text));
}

void UpConsole::say(const std::string& text) {
  const std::scoped_lock lock(mutex_);
  write(text + "\n");
}

void UpConsole::set_status(std::vector<std::string> block) {
  if (!is_terminal_) return;
  const std::scoped_lock lock(mutex_);
  erase_block();
  block_ = std::move(block);
  draw_block();
}

std::vector<std::string> UpConsole::tail(const std::string& member) const {
  const std::scoped_lock lock(mutex_);
  const auto log = logs_.find(member);
  if (log == logs_.end()) return {};
  return {log->second.tail.begin(), log->second.tail.end()};
}

void UpConsole::write(const std::string& text) {
  erase_block();
  write_stderr(text);
  draw_block();
}

void UpConsole::erase_block() {
  if (num_drawn_ == 0) return;
  write_stderr(fmt::format("\x1b[{}A\r\x1b[J", num_drawn_));
  num_drawn_ = 0;
}

void UpConsole::draw_block() {
  if (block_.empty()) return;
  const size_t width = terminal_width();
  std::string text;
  for (const std::string& line : block_)
    text += line.substr(0, width - 1) + "\n";
  write_stderr(text);
  num_drawn_ = block_.size();
}

}  // namespace wideep::cmd
