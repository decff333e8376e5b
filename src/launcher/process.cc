#include "launcher/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

namespace wideep::launcher {
namespace {

std::string system_error_text(int number) {
  return strerrordesc_np(number);
}

std::vector<std::string> environment_of(const ProcessSpec& spec) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const bool is_dropped = !spec.dropped_prefix.empty() && text.starts_with(spec.dropped_prefix);
    if (!is_dropped && !spec.environment.contains(text.substr(0, text.find('='))))
      result.push_back(text);
  }
  for (const auto& [name, value] : spec.environment)
    result.push_back(name + "=" + value);
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts)
    result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

// In the child, between fork and exec: only what is safe there.
[[noreturn]] void become(
    char* const* command, char* const* environment, int output, int error_pipe, int parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == parent) {
    setpgid(0, 0);
    const int null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, nullptr);
    execve(command[0], command, environment);
  }
  const int number = errno;
  [[maybe_unused]] const ssize_t written = write(error_pipe, &number, sizeof number);
  _exit(127);
}

}  // namespace

std::string ExitStatus::describe() const {
  if (signal == 0) return fmt::format("exit code {}", code);
  const char* name = sigabbrev_np(signal);
  return fmt::format("killed by SIG{}", name != nullptr ? name : std::to_string(signal));
}

Result<std::unique_ptr<Process>> Process::start(const ProcessSpec& spec) {
  std::array<int, 2> output;
  std::array<int, 2> failure;  // carries errno of a failed exec; closed by a successful one
  if (pipe2(output.data(), O_CLOEXEC) != 0) {
    return error(ErrorCode::kUnavailable, "{}: no pipe: {}", spec.name, system_error_text(errno));
  }
  if (pipe2(failure.data(), O_CLOEXEC) != 0) {
    close(output[0]);
    close(output[1]);
    return error(ErrorCode::kUnavailable, "{}: no pipe: {}", spec.name, system_error_text(errno));
  }
  std::vector<std::string> command = spec.command;
  std::vector<std::string> environment = environment_of(spec);
  const std::vector<char*> command_pointers = pointers(command);
  const std::vector<char*> environment_pointers = pointers(environment);
  const int parent = getpid();
  const int pid = fork();
  if (pid == 0) {
    become(command_pointers.data(), environment_pointers.data(), output[1], failure[1], parent);
  }
  close(output[1]);
  close(failure[1]);
  int number = pid < 0 ? errno : 0;
  if (pid > 0 && read(failure[0], &number, sizeof number) > 0) waitpid(pid, nullptr, 0);
  close(failure[0]);
  if (number != 0) {
    close(output[0]);
    return error(ErrorCode::kUnavailable, "{}: cannot start {}: {}", spec.name,
                 spec.command.front(), system_error_text(number));
  }
  fcntl(output[0], F_SETFL, O_NONBLOCK);
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  return std::make_unique<Process>(Private{}, pid, pidfd, output[0]);
}

Process::~Process() {
  if (!exit_status()) {
    signal(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close(pidfd_);
  if (output_ >= 0) close(output_);
}

void Process::signal(int number) {
  if (!status_) kill(-pid_, number);
}

std::vector<std::string> Process::read_lines() {
  std::vector<std::string> lines;
  std::array<char, 4096> buffer;
  while (output_ >= 0) {
    const ssize_t got = read(output_, buffer.data(), buffer.size());
    if (got < 0) break;
    if (got == 0) {
      close(std::exchange(output_, -1));
      if (!partial_line_.empty()) lines.push_back(std::exchange(partial_line_, {}));
      break;
    }
    for (const char c : std::string_view(buffer.data(), static_cast<size_t>(got))) {
      if (c == '\n') {
        lines.push_back(std::exchange(partial_line_, {}));
      } else if (partial_line_.size() < kLineBytesMax) {
        partial_line_ += c;
      }
    }
  }
  return lines;
}

std::optional<ExitStatus> Process::exit_status() {
  if (status_) return status_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) {
    status_ =
        WIFSIGNALED(status) ? ExitStatus{0, WTERMSIG(status)} : ExitStatus{WEXITSTATUS(status), 0};
    kill(-pid_, SIGKILL);  // what it left behind in its process group
  }
  return status_;
}

}  // namespace wideep::launcher
