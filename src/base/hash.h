// Hashes: xxh64 for checksums and the picker's prefix hashes, SHA-256 where nobody may forge a
// match (prefix cache keys, tickets, NumericConfig).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wideep {

uint64_t xxh64(std::span<const std::byte> bytes, uint64_t seed = 0);
uint64_t xxh64(std::string_view text, uint64_t seed = 0);

// XXH3 of bytes that come piece by piece: the checksum of KV blocks, much faster than memory.
class Checksum {
 public:
  Checksum();
  ~Checksum();
  Checksum(const Checksum&) = delete;
  Checksum& operator=(const Checksum&) = delete;

  void add(std::span<const std::byte> bytes);
  // Of all bytes so far; starts anew.
  uint64_t take();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

using Digest = std::array<std::byte, 32>;
Digest sha256(std::span<const std::byte> bytes);
// HMAC-SHA256 (RFC 2104).
Digest hmac_sha256(std::span<const std::byte> key, std::span<const std::byte> bytes);
// Lower-case hex, all 64 digits or the first `digits`.
std::string to_hex(std::span<const std::byte> bytes, size_t digits = SIZE_MAX);
// Base64 with the URL alphabet, without padding (RFC 4648 section 5). Decoding is strict: nothing
// on any other byte.
std::string to_base64url(std::span<const std::byte> bytes);
std::optional<std::vector<std::byte>> from_base64url(std::string_view text);
// Equal without leaking where they differ.
bool equal_constant_time(std::span<const std::byte> a, std::span<const std::byte> b);

}  // namespace wideep
