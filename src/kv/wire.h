// What ranks say to each other about KV: messages with a MAC, over any stream.
//
//   bytes 0-3    magic "WDKV"          bytes 6-7   kind
//   bytes 4-5    protocol              bytes 8-11  bytes of the payload
//   payload
//   32 bytes     HMAC-SHA256 over header and payload
//
// All numbers little-endian. docs/formats/kv-transfer.md has the payloads and a worked message.
// Behind an answer to a pull come its blocks or their checksums, outside of any message.
#pragma once

#include "base/clock.h"
#include "base/hash.h"
#include "base/result.h"
#include "fabric/stream.h"
#include "kv/lease_table.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace wideep::kv {

// Both ways, first. The consumer speaks first.
struct Hello {
  static constexpr size_t kTextBytesMax = 4096;

  uint16_t protocol_min = 0;
  uint16_t protocol_max = 0;
  std::string engine_id;   // of the sender
  std::string identity;    // see identity.h
  int64_t num_blocks = 0;  // of the producer's pool; 0 from a consumer
  bool operator==(const Hello&) const = default;
};

// Consumer to producer: the blocks of a ticket from `first_block` on.
struct PullRequest {
  enum class Want : uint8_t { kBytes = 0, kChecksums = 1 };

  std::string ticket;  // as it was sealed
  uint32_t first_block = 0;
  uint32_t num_blocks = 0;
  Want want = Want::kBytes;
  bool operator==(const PullRequest&) const = default;
};

// The answer. kBytes: `num_blocks` times the bytes of all groups and a checksum follow; kChecksums:
// `num_blocks` checksums.
struct PullAnswer {
  uint32_t num_blocks = 0;
  bool operator==(const PullAnswer&) const = default;
};

// Instead of an answer.
struct Refusal {
  static constexpr size_t kReasonBytesMax = 8192;

  ErrorCode code{};
  std::string reason;
  bool operator==(const Refusal&) const = default;
};

// Consumer to producer, without an answer.
struct LeaseNotice {
  static constexpr size_t kLeasesMax = 1024;
  enum class What : uint8_t { kRelease = 0, kHeartbeat = 1 };

  What what{};
  std::vector<LeaseId> leases;
  bool operator==(const LeaseNotice&) const = default;
};

using Message = std::variant<Hello, PullRequest, PullAnswer, Refusal, LeaseNotice>;

inline constexpr size_t kHeaderBytes = 12;
inline constexpr size_t kPayloadBytesMax = size_t{4} << 20;

struct MessageHeader {
  uint16_t kind = 0;
  uint32_t payload_bytes = 0;
};

// Header, payload and MAC.
std::vector<std::byte> encode(const Message& message, std::span<const std::byte> key);
// kInvalidArgument: no header of ours, or above a limit.
Result<MessageHeader> parse_header(std::span<const std::byte, kHeaderBytes> bytes);
// A whole message, header to MAC. kDataLoss: the MAC is wrong; kInvalidArgument: anything else.
Result<Message> parse_message(std::span<const std::byte> bytes, std::span<const std::byte> key);

Status send_message(fabric::Stream& stream,
                    const Message& message,
                    std::span<const std::byte> key,
                    TimePoint deadline);

// `idle_until`: for the first byte; then `patience` for the rest.
struct ReceiveLimits {
  TimePoint idle_until;
  Duration patience = std::chrono::seconds{5};
};

Result<Message> receive_message(fabric::Stream& stream,
                                std::span<const std::byte> key,
                                const ReceiveLimits& limits);

// kInvalidArgument, with both named: no protocol that both speak, or identities that differ.
Status check_hello(const Hello& theirs, const Hello& ours);

// On a UNIX socket the producer first sends this byte with the descriptor of its pool: having it is
// the proof that both are on one host.
inline constexpr std::byte kHandOverByte{0x4B};

}  // namespace wideep::kv
