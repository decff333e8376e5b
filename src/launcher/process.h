// A child process: started in a process group of its own, dies with us, its output read line by
// line.
//
// Thread: all methods from one thread.
#pragma once

#include "base/result.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace wideep::launcher {

struct ProcessSpec {
  std::string name;                  // "decode-0-1"; stands before each line of its output
  std::vector<std::string> command;  // the program by path, then its arguments
  std::map<std::string, std::string> environment;  // added to ours
  std::string dropped_prefix;  // variables of ours whose names begin so are not passed on; "": all
};

// How a process ended.
struct ExitStatus {
  int code = 0;    // of exit()
  int signal = 0;  // that ended it; 0: none

  bool is_success() const { return code == 0 && signal == 0; }

  std::string describe() const;  // "exit code 3", "killed by SIGKILL"
};

class Process {
  struct Private {};

 public:
  static constexpr size_t kLineBytesMax = 16 * 1024;  // longer lines are cut

  // kUnavailable if the program cannot be started.
  static Result<std::unique_ptr<Process>> start(const ProcessSpec& spec);

  // For start() only.
  Process(Private, int pid, int pidfd, int output) : pid_(pid), pidfd_(pidfd), output_(output) {}

  // Kills what still runs, and waits for it.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // To the whole process group.
  void signal(int number);

  // Readable when the process has ended; and when it has written something.
  int exit_descriptor() const { return pidfd_; }

  int output_descriptor() const { return output_; }

  // Whole lines that have come since the last call; never blocks.
  std::vector<std::string> read_lines();
  // Set once the process has ended; never blocks.
  std::optional<ExitStatus> exit_status();

  // Whether exit_status() has told the end already; asks nobody.
  bool has_ended() const { return status_.has_value(); }

  int pid() const { return pid_; }

 private:
  int pid_;
  int pidfd_;
  int output_;  // -1 after its end
  std::string partial_line_;
  std::optional<ExitStatus> status_;
};

}  // namespace wideep::launcher
