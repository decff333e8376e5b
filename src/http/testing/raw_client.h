// For tests: a blocking socket that says to a server whatever the test wants, right or wrong. Every
// wait ends after `kPatience`, so that a broken server fails a test instead of hanging it.
#pragma once

#include "net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <string_view>
#include <utility>

namespace wideep::http::testing {

class RawClient {
 public:
  static constexpr timeval kPatience{.tv_sec = 60, .tv_usec = 0};

  explicit RawClient(const net::Address& address, int receive_buffer_bytes = 0) {
    fd_ = ::socket(address.is_unix() ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof kPatience);
    if (receive_buffer_bytes > 0) {
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
    }
    int result = 0;
    if (address.is_unix()) {
      sockaddr_un name{};
      name.sun_family = AF_UNIX;
      std::strncpy(name.sun_path, address.path.c_str(), sizeof name.sun_path - 1);
      result = ::connect(fd_, reinterpret_cast<sockaddr*>(&name), sizeof name);
    } else {
      sockaddr_in name{};
      name.sin_family = AF_INET;
      name.sin_port = htons(address.port);
      ::inet_pton(AF_INET, address.host.c_str(), &name.sin_addr);
      result = ::connect(fd_, reinterpret_cast<sockaddr*>(&name), sizeof name);
    }
    connected_ = result == 0;
  }

  RawClient(RawClient&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), connected_(other.connected_) {}

  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  ~RawClient() { close(); }

  bool connected() const { return connected_; }

  // False when the server has cut the connection.
  bool send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  // What comes until `end` has been seen, the server closes, or patience ends.
  std::string receive_until(std::string_view end) {
    std::string received;
    char buffer[4096];
    while (end.empty() || received.find(end) == std::string::npos) {
      // One byte at a time near the end, so that nothing of the next answer is taken.
      const ssize_t got = ::recv(fd_, buffer, end.empty() ? sizeof buffer : 1, 0);
      if (got <= 0) {
        reset_ = got < 0 && errno == ECONNRESET;
        closed_ = got == 0 || reset_;
        break;
      }
      received.append(buffer, static_cast<size_t>(got));
    }
    return received;
  }

  // Everything until the server closes.
  std::string receive_all() { return receive_until({}); }

  // One answer with content-length.
  std::string receive_answer() {
    std::string answer = receive_until("\r\n\r\n");
    const size_t at = answer.find("content-length: ");
    if (at == std::string::npos) return answer;
    const size_t length = std::stoul(answer.substr(at + 16));
    std::string body(length, '\0');
    if (length > 0 && ::recv(fd_, body.data(), length, MSG_WAITALL) < 0) return answer;
    return answer + body;
  }

  // Whether a receive found the connection closed by the server.
  bool was_closed() const { return closed_; }

  bool was_reset() const { return reset_; }

  void close_sending() const { ::shutdown(fd_, SHUT_WR); }

  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

  // Closes so that the server sees a reset.
  void reset() {
    const linger hard{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }

 private:
  int fd_ = -1;
  bool connected_ = false;
  bool closed_ = false;
  bool reset_ = false;
};

}  // namespace wideep::http::testing
