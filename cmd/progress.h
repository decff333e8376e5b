// Shows how far something has come: one line that redraws itself on a terminal, a line every few
// seconds else.
#pragma once

#include "base/clock.h"

#include <cstdint>
#include <mutex>
#include <string>

namespace wideep::cmd {

// Thread: update() from any.
class Progress {
 public:
  // `what` is what is being done ("loading"); `unit` what is counted: "B" shows bytes as MB and GB.
  Progress(std::string what, std::string unit);
  // Clears the line on a terminal.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` of `total` (0: not known), with a note at the end of the line.
  void update(int64_t done, int64_t total, const std::string& note = "");

 private:
  std::string line(int64_t done, int64_t total, const std::string& note) const;

  const std::string what_;
  const std::string unit_;
  const bool is_terminal_;
  const TimePoint start_;
  std::mutex mutex_;
  TimePoint last_shown_;
  bool shown_ = false;
};

// "1.5 GB", "312 MB", "17 kB".
std::string bytes_text(double bytes);
// "3 s", "2 min 05 s".
std::string duration_text(double seconds);

}  // namespace wideep::cmd
