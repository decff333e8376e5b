// Connections that leave the host: TLS 1.3 with a pre-shared key, by OpenSSL. Who does not know the
// key gets no further than the handshake; what passes is encrypted and cannot be altered.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "fabric/stream.h"

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace wideep::fabric {

inline constexpr size_t kSecretBytesMin = 16;

// 32 bytes that both ends know.
class PresharedKey {
 public:
  // From what an operator wrote into a file; surrounding white space does not count.
  // kInvalidArgument below kSecretBytesMin.
  static Result<PresharedKey> from_secret(std::string_view secret);

  // Another key for another purpose (HKDF-SHA256): knowing it tells nothing about this one.
  PresharedKey derive(std::string_view purpose) const;

  std::span<const std::byte, 32> bytes() const { return bytes_; }

 private:
  std::array<std::byte, 32> bytes_{};
};

enum class TlsRole { kClient, kServer };

// Does the handshake on a connected, non-blocking socket. kUnavailable: the other end does not know
// the key, or is no TLS. kTimeout.
Result<std::unique_ptr<Stream>> tls_stream(UniqueFd socket,
                                           TlsRole role,
                                           const PresharedKey& key,
                                           const WaitLimit& limit);

// With a key: TLS; without: as it is.
Result<std::unique_ptr<Stream>> open_stream(UniqueFd socket,
                                            TlsRole role,
                                            const std::optional<PresharedKey>& key,
                                            const WaitLimit& limit);

}  // namespace wideep::fabric
