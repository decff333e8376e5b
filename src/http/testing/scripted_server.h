// For tests: a peer that follows a script instead of HTTP.
#pragma once

#include "net/address.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace wideep::http::testing {

// Each connection gets the next line of the script.
class ScriptedServer {
 public:
  explicit ScriptedServer(std::vector<std::function<void(int fd)>> script) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(fd_, reinterpret_cast<sockaddr*>(&name), sizeof name);
    ::listen(fd_, 16);
    socklen_t size = sizeof name;
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&name), &size);
    address_ = {"127.0.0.1", ntohs(name.sin_port), {}};
    thread_ = std::thread([this, script = std::move(script)] {
      for (const auto& act : script) {
        const int client = ::accept(fd_, nullptr, nullptr);
        if (client < 0) return;
        act(client);
        ::close(client);
      }
    });
  }

  ~ScriptedServer() {
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
  }

  const net::Address& address() const { return address_; }

 private:
  int fd_;
  net::Address address_;
  std::thread thread_;
};

inline void read_head(int fd) {
  std::string head;
  char c = 0;
  while (!head.ends_with("\r\n\r\n") && ::recv(fd, &c, 1, 0) == 1)
    head += c;
}

inline void say(int fd, std::string_view bytes) {
  EXPECT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
}

}  // namespace wideep::http::testing
