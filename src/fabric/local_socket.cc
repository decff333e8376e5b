#include "fabric/local_socket.h"

#include "base/check.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace wideep::fabric {
namespace {

std::unexpected<Error> failed(std::string_view what) {
  return error(ErrorCode::kUnavailable, "local socket: {}: {}", what, strerrordesc_np(errno));
}

struct LocalAddress {
  sockaddr_un name{};
  socklen_t length = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&name); }
};

LocalAddress address_of(std::string_view name) {
  constexpr size_t kNameBytesMax = 100;
  WD_CHECK(name.size() <= kNameBytesMax);
  LocalAddress address{.name = {.sun_family = AF_UNIX, .sun_path = {}}};
  // A leading zero byte: the abstract namespace.
  std::memcpy(address.name.sun_path + 1, name.data(), name.size());
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

Result<UniqueFd> open_socket(LocalSocketType type) {
  UniqueFd opened(socket(AF_UNIX, static_cast<int>(type) | SOCK_CLOEXEC, 0));
  if (!opened) return failed("socket");
  return opened;
}

}  // namespace

LocalSocketType local_packets() {
  return LocalSocketType{SOCK_SEQPACKET};
}

LocalSocketType local_stream() {
  return LocalSocketType{static_cast<int>(SOCK_STREAM) | static_cast<int>(SOCK_NONBLOCK)};
}

Result<UniqueFd> listen_local(std::string_view name, LocalSocketType type, int backlog) {
  const LocalAddress address = address_of(name);
  WD_ASSIGN_OR_RETURN(UniqueFd listener, open_socket(type));
  if (bind(listener.get(), address.get(), address.length) != 0)
    return failed("bind (does somebody have that name already?)");
  if (listen(listener.get(), backlog) != 0) return failed("listen");
  return listener;
}

Result<UniqueFd> connect_local(std::string_view name, LocalSocketType type) {
  const LocalAddress address = address_of(name);
  WD_ASSIGN_OR_RETURN(UniqueFd socket, open_socket(type));
  if (connect(socket.get(), address.get(), address.length) == 0) return socket;
  if (errno == ECONNREFUSED || errno == EAGAIN || errno == EINTR)
    return error(ErrorCode::kNotFound, "local socket: nobody listens (yet)");
  return failed("connect");
}

Result<pid_t> same_user_peer(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
    return failed("credentials");
  if (credentials.uid != geteuid())
    return invalid_argument("local socket: the other end runs as user {}, this one as {}",
                            credentials.uid, geteuid());
  return credentials.pid;
}

Status send_descriptor(int socket, std::span<const std::byte> bytes, int descriptor) {
  iovec part{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{.msg_iov = &part,
                 .msg_iovlen = 1,
                 .msg_control = control.data(),
                 .msg_controllen = control.size()};
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
  if (sendmsg(socket, &message, MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size()))
    return failed("send a descriptor");
  return {};
}

Result<ReceivedDescriptor> receive_descriptor(int socket, std::span<std::byte> bytes) {
  iovec part{.iov_base = bytes.data(), .iov_len = bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{.msg_iov = &part,
                 .msg_iovlen = 1,
                 .msg_control = control.data(),
                 .msg_controllen = control.size()};
  const ssize_t count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (count < 0) return failed("receive a descriptor");
  if ((message.msg_flags & MSG_CTRUNC) != 0)
    return error(ErrorCode::kExhausted, "local socket: no descriptor left for the one that came");
  ReceivedDescriptor received{.num_bytes = static_cast<size_t>(count), .descriptor = {}};
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_type == SCM_RIGHTS &&
      header->cmsg_len == CMSG_LEN(sizeof(int))) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    received.descriptor = UniqueFd(fd);
  }
  return received;
}

}  // namespace wideep::fabric
