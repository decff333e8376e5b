// UNIX sockets with abstract names (nothing to clean up), and descriptors passed over them. The
// kernel vouches for who is at the other end.
#pragma once

#include "base/result.h"
#include "fabric/unique_fd.h"

#include <sys/types.h>

#include <cstddef>
#include <span>
#include <string_view>

namespace wideep::fabric {

// Of socket(2), flags included.
enum class LocalSocketType : int {};

LocalSocketType local_packets();  // keeps messages apart; blocking
LocalSocketType local_stream();   // not blocking

// Names: at most 100 bytes (checked). kUnavailable: somebody listens there already.
Result<UniqueFd> listen_local(std::string_view name, LocalSocketType type, int backlog);
// One try. kNotFound: nobody listens there, or it takes no calls right now.
Result<UniqueFd> connect_local(std::string_view name, LocalSocketType type);

// Who is at the other end. kInvalidArgument: a process of another user.
Result<pid_t> same_user_peer(int socket);

// `bytes` (not empty) together with a descriptor, in one message.
Status send_descriptor(int socket, std::span<const std::byte> bytes, int descriptor);

struct ReceivedDescriptor {
  size_t num_bytes = 0;
  UniqueFd descriptor;  // none if none came
};

// What is there now, at most `bytes`; the socket must be readable.
Result<ReceivedDescriptor> receive_descriptor(int socket, std::span<std::byte> bytes);

}  // namespace wideep::fabric
