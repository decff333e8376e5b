// Ranks that are forked processes, for tests: each runs a body and reports its Status back.
#pragma once

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "fabric/unique_fd.h"
#include "net/held_ports.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace wideep::fabric {

// A token of this test run; forked children inherit it.
inline uint64_t test_token() {
  static const uint64_t token = random_device_bits();
  return token;
}

// Where processes of a test meet: a port of this host that nobody else gets while this lives.
struct LeaderAddress {
  net::HeldPorts held;
  net::Address address = *held.hold("127.0.0.1");

  operator const net::Address&() const { return address; }  // NOLINT: it is one
};

// The pipe on which a child says that it is ready: a byte. Set in the child.
inline int& ready_pipe() {
  static int fd = -1;
  return fd;
}

// Called by the body of a child when it has come as far as the test wants to wait for.
inline void processes_ready(int32_t rank) {
  const char byte = static_cast<char>(rank);
  EXPECT_EQ(write(ready_pipe(), &byte, 1), 1);
}

class Processes {
 public:
  Processes(int32_t count, const std::function<Status(int32_t)>& body) {
    test_token();
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    ready_ = UniqueFd(ends[0]);
    UniqueFd ready_write(ends[1]);
    for (int32_t rank = 0; rank < count; ++rank)
      children_.push_back(spawn(rank, body, ready_write.get()));
  }

  ~Processes() {
    for (const Child& child : children_) {
      if (child.is_done) continue;
      ::kill(child.pid, SIGKILL);
      waitpid(child.pid, nullptr, 0);
    }
  }

  pid_t pid(int32_t rank) const { return at(rank).pid; }

  void kill(int32_t rank, int signal) const { ::kill(at(rank).pid, signal); }

  // Until processes_ready() was called `count` times; by default once by every child.
  void wait_until_ready(size_t count = 0) const {
    for (size_t i = 0; i < (count == 0 ? children_.size() : count); ++i) {
      char byte = 0;
      ASSERT_TRUE(readable(ready_.get()));
      ASSERT_EQ(read(ready_.get(), &byte, 1), 1);
    }
  }

  // "ok", the error's message, or "killed"; "hangs" when nothing comes for two minutes.
  std::string outcome(int32_t rank) {
    Child& child = children_[static_cast<size_t>(rank)];
    std::string text;
    char buffer[4096];
    for (;;) {
      if (!readable(child.result.get())) return "hangs";
      const ssize_t count = read(child.result.get(), buffer, sizeof buffer);
      if (count <= 0) break;
      text.append(buffer, static_cast<size_t>(count));
    }
    waitpid(child.pid, nullptr, 0);
    child.is_done = true;
    return text.empty() ? "killed" : text;
  }

  std::vector<std::string> outcomes() {
    std::vector<std::string> all;
    for (size_t rank = 0; rank < children_.size(); ++rank)
      all.push_back(outcome(static_cast<int32_t>(rank)));
    return all;
  }

 private:
  struct Child {
    pid_t pid = -1;
    UniqueFd result;
    bool is_done = false;
  };

  const Child& at(int32_t rank) const { return children_[static_cast<size_t>(rank)]; }

  static bool readable(int fd) {
    pollfd poll_fd{.fd = fd, .events = POLLIN, .revents = 0};
    return poll(&poll_fd, 1, 120'000) > 0;
  }

  Child spawn(int32_t rank, const std::function<Status(int32_t)>& body, int ready_fd) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    const pid_t pid = fork();
    EXPECT_GE(pid, 0);
    if (pid != 0) {
      close(ends[1]);
      return {.pid = pid, .result = UniqueFd(ends[0])};
    }
    for (Child& earlier : children_)
      earlier.result.reset();
    close(ends[0]);
    ready_pipe() = ready_fd;
    const Status status = body(rank);
    const std::string text = status ? "ok" : status.error().message;
    const bool written = write(ends[1], text.data(), text.size()) == std::ssize(text);
    _exit(written ? 0 : 1);
  }

  UniqueFd ready_;
  std::vector<Child> children_;
};

}  // namespace wideep::fabric
