// A connection to another host that never blocks, and how to get one. Thread: a stream belongs to
// one at a time; the functions block within their limit, on any.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "fabric/unique_fd.h"
#include "fabric/wait_limit.h"
#include "net/address.h"

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace wideep::fabric {

class Stream {
 public:
  virtual ~Stream() = default;
  virtual int fd() const = 0;
  // Bytes read or written; 0: it would block. kUnavailable: the connection has ended.
  virtual Result<size_t> read(std::span<std::byte> bytes) = 0;
  virtual Result<size_t> write(std::span<const std::byte> bytes) = 0;

  // It has taken bytes from the socket that read() cannot give out yet: the rest of a record is
  // still to come.
  virtual bool holds_part() const { return false; }

  // Bytes on the wire that each write adds to what it carries.
  virtual int record_overhead() const { return 0; }
};

// Over a connected socket, as it is.
std::unique_ptr<Stream> plain_stream(UniqueFd socket);

struct TcpOptions {
  Duration silence_max = std::chrono::seconds{3};  // unacknowledged data or probes: the end
};

// Non-blocking, without delay, with keep-alive and a time limit for what is not acknowledged: a cut
// cable ends the connection. A Unix socket has none of this and needs none.
Status prepare_socket(int socket, const TcpOptions& options);

// At a TCP address, or at the path of a Unix socket: then only whoever may enter its folder can
// call, and what lies at the path is removed first. A name that is not known yet is waited for: a
// pod may be started before its own name is published.
inline constexpr std::chrono::seconds kNamePatience{30};
Result<UniqueFd> listen_at(const net::Address& address, Duration name_patience = kNamePatience);
// Where a TCP listener ended up: port 0 becomes the kernel's choice.
Result<net::Address> local_address(int listener, const net::Address& asked);
// The address that this host's packets to `peer` carry: how others reach it. Tries again while the
// name of `peer` is not known yet.
Result<std::string> host_towards(const net::Address& peer, const WaitLimit& limit);
// Tries again while nobody listens yet.
Result<UniqueFd> connect_to(const net::Address& address, const WaitLimit& limit);
// A call that waits at a listener, if there is one.
Result<std::optional<UniqueFd>> accept_waiting(int listener);
// The same for loops that never give up: with no descriptors left for a call it waits a moment, or
// until `interrupt` is readable, instead of turning at full speed.
std::optional<UniqueFd> accept_patiently(int listener, int interrupt);
// kTimeout when nobody calls.
Result<UniqueFd> accept_call(int listener, const WaitLimit& limit);

// Exactly all bytes, on a stream, within the limit. For handshakes.
Status read_all(Stream& stream, std::span<std::byte> bytes, const WaitLimit& limit);
Status write_all(Stream& stream, std::span<const std::byte> bytes, const WaitLimit& limit);

}  // namespace wideep::fabric
