// Where the lines of a deployment go: to stderr with the process they come from in front, to a file
// per process, and, on a terminal, above a status block that redraws itself.
#pragma once

#include "base/result.h"

#include <cstdint>
#include <deque>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace wideep::cmd {

// Thread: any.
class UpConsole {
 public:
  static constexpr int64_t kFileBytesMax = 16 << 20;  // a longer file starts anew
  static constexpr size_t kTailLines = 20;

  // Files are written into `log_folder`, which exists. Without `show_lines` the lines of processes
  // go to their files only.
  UpConsole(std::string log_folder, bool show_lines);
  // Removes the status block from a terminal.
  ~UpConsole();
  UpConsole(const UpConsole&) = delete;
  UpConsole& operator=(const UpConsole&) = delete;

  // A line that the process `member` wrote.
  void line(const std::string& member, const std::string& text);
  // A line of our own.
  void say(const std::string& text);
  // What stands below the lines from now on; on a terminal only.
  void set_status(std::vector<std::string> block);

  bool is_terminal() const { return is_terminal_; }

  // The last lines of a process.
  std::vector<std::string> tail(const std::string& member) const;

 private:
  struct Log {
    std::ofstream file;
    int64_t num_bytes = 0;
    std::deque<std::string> tail;
  };

  // With mutex_ held.
  void write(const std::string& text);
  void erase_block();
  void draw_block();

  const std::string log_folder_;
  const bool show_lines_;
  const bool is_terminal_;
  mutable std::mutex mutex_;
  std::map<std::string, Log> logs_;
  std::vector<std::string> block_;
  size_t num_drawn_ = 0;  // lines of the block on the screen
};

}  // namespace wideep::cmd
