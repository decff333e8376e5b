#include "kv/wire.h"

#include "api/kv_ticket.h"
#include "base/byte_codec.h"
#include "base/check.h"
#include "kv/identity.h"
#include "kv/pool_image.h"

#include <array>
#include <cstring>
#include <utility>

namespace wideep::kv {
namespace {

constexpr std::array<char, 4> kMagic = {'W', 'D', 'K', 'V'};

void write(ByteWriter& out, const Hello& hello) {
  out.number(hello.protocol_min);
  out.number(hello.protocol_max);
  out.text(hello.engine_id);
  out.text(hello.identity);
  out.number(hello.num_blocks);
}

void write(ByteWriter& out, const PullRequest& pull) {
  out.text<uint32_t>(pull.ticket);
  out.number(pull.first_block);
  out.number(pull.num_blocks);
  out.number(pull.want);
}

void write(ByteWriter& out, const PullAnswer& answer) {
  out.number(answer.num_blocks);
}

void write(ByteWriter& out, const Refusal& refusal) {
  out.number(static_cast<uint8_t>(refusal.code));
  out.text(std::string_view(refusal.reason).substr(0, Refusal::kReasonBytesMax));
}

void write(ByteWriter& out, const LeaseNotice& notice) {
  WD_CHECK(notice.leases.size() <= LeaseNotice::kLeasesMax);
  out.number(notice.what);
  out.number(static_cast<uint16_t>(notice.leases.size()));
  for (const LeaseId lease : notice.leases)
    out.number(lease);
}

bool read(ByteReader& in, Hello& hello) {
  hello.protocol_min = in.number<uint16_t>();
  hello.protocol_max = in.number<uint16_t>();
  hello.engine_id = in.text(Hello::kTextBytesMax);
  hello.identity = in.text(Hello::kTextBytesMax);
  hello.num_blocks = in.number<int64_t>();
  return hello.num_blocks >= 0 && hello.num_blocks <= PoolImage::kBlocksMax;
}

bool read(ByteReader& in, PullRequest& pull) {
  pull.ticket = in.text<uint32_t>(api::KvTicket::kSealedBytesMax);
  pull.first_block = in.number<uint32_t>();
  pull.num_blocks = in.number<uint32_t>();
  pull.want = in.number<PullRequest::Want>();
  return pull.want <= PullRequest::Want::kChecksums;
}

bool read(ByteReader& in, PullAnswer& answer) {
  answer.num_blocks = in.number<uint32_t>();
  return true;
}

bool read(ByteReader& in, Refusal& refusal) {
  const auto code = in.number<uint8_t>();
  refusal.code = static_cast<ErrorCode>(code);
  refusal.reason = in.text(Refusal::kReasonBytesMax);
  return code < kNumErrorCodes;
}

bool read(ByteReader& in, LeaseNotice& notice) {
  notice.what = in.number<LeaseNotice::What>();
  const auto count = in.number<uint16_t>();
  if (notice.what > LeaseNotice::What::kHeartbeat || count > LeaseNotice::kLeasesMax ||
      in.remaining() != count * sizeof(LeaseId))
    return false;
  for (uint16_t i = 0; i < count; ++i)
    notice.leases.push_back(in.number<LeaseId>());
  return true;
}

template <typename Body>
Result<Message> parse_body(ByteReader in) {
  Body body;
  if (!read(in, body) || !in.is_complete())
    return invalid_argument("malformed KV message: {} bytes left", in.remaining());
  return body;
}

Result<Message> parse_payload(uint16_t kind, ByteReader in) {
  switch (kind) {
    case 0:
      return parse_body<Hello>(in);
    case 1:
      return parse_body<PullRequest>(in);
    case 2:
      return parse_body<PullAnswer>(in);
    case 3:
      return parse_body<Refusal>(in);
    case 4:
      return parse_body<LeaseNotice>(in);
    default:
      return invalid_argument("KV message of unknown kind {}", kind);
  }
}

static_assert(std::variant_size_v<Message> == 5);  // parse_payload knows them all

}  // namespace

std::vector<std::byte> encode(const Message& message, std::span<const std::byte> key) {
  ByteWriter payload;
  std::visit([&](const auto& body) { write(payload, body); }, message);
  WD_CHECK(payload.out().size() <= kPayloadBytesMax);
  ByteWriter out;
  out.bytes(std::as_bytes(std::span(kMagic)));
  out.number(kProtocol);
  out.number(static_cast<uint16_t>(message.index()));
  out.number(static_cast<uint32_t>(payload.out().size()));
  out.bytes(payload.out());
  out.bytes(hmac_sha256(key, out.out()));
  return std::move(out.out());
}

Result<MessageHeader> parse_header(std::span<const std::byte, kHeaderBytes> bytes) {
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0)
    return invalid_argument("not a KV message");
  ByteReader in(bytes.subspan(kMagic.size()));
  const auto protocol = in.number<uint16_t>();
  MessageHeader header;
  header.kind = in.number<uint16_t>();
  header.payload_bytes = in.number<uint32_t>();
  constexpr uint16_t kHello = 0;  // says which protocols its sender speaks: read in all of them
  if (header.kind != kHello && (protocol < kProtocolMin || protocol > kProtocol))
    return invalid_argument("KV protocol {} there, {} to {} here", protocol, kProtocolMin,
                            kProtocol);
  if (header.kind >= std::variant_size_v<Message> || header.payload_bytes > kPayloadBytesMax)
    return invalid_argument("KV message of kind {} with {} bytes", header.kind,
                            header.payload_bytes);
  return header;
}

Result<Message> parse_message(std::span<const std::byte> bytes, std::span<const std::byte> key) {
  if (bytes.size() < kHeaderBytes + sizeof(Digest))
    return invalid_argument("KV message of {} bytes", bytes.size());
  WD_ASSIGN_OR_RETURN(const MessageHeader header, parse_header(bytes.first<kHeaderBytes>()));
  if (bytes.size() != kHeaderBytes + header.payload_bytes + sizeof(Digest))
    return invalid_argument("KV message of {} bytes says {}", bytes.size(), header.payload_bytes);
  const auto body = bytes.first(bytes.size() - sizeof(Digest));
  if (!equal_constant_time(hmac_sha256(key, body), bytes.last(sizeof(Digest))))
    return error(ErrorCode::kDataLoss, "KV message with a wrong MAC (is it the same key?)");
  return parse_payload(header.kind, ByteReader(body.subspan(kHeaderBytes)));
}

Status check_hello(const Hello& theirs, const Hello& ours) {
  if (theirs.protocol_min > ours.protocol_max || ours.protocol_min > theirs.protocol_max)
    return invalid_argument("KV protocols {} to {} there, {} to {} here", theirs.protocol_min,
                            theirs.protocol_max, ours.protocol_min, ours.protocol_max);
  return check_identity(theirs.identity, ours.identity);
}

Status send_message(fabric::Stream& stream,
                    const Message& message,
                    std::span<const std::byte> key,
                    TimePoint deadline) {
  return fabric::write_all(stream, encode(message, key), deadline);
}

Result<Message> receive_message(fabric::Stream& stream,
                                std::span<const std::byte> key,
                                const ReceiveLimits& limits) {
  std::vector<std::byte> bytes(kHeaderBytes);
  WD_TRY(fabric::read_all(stream, std::span(bytes).first(1), limits.idle_until));
  const TimePoint deadline = real_clock().now() + limits.patience;
  WD_TRY(fabric::read_all(stream, std::span(bytes).subspan(1), deadline));
  WD_ASSIGN_OR_RETURN(const MessageHeader header,
                      parse_header(std::span<const std::byte, kHeaderBytes>(bytes)));
  bytes.resize(kHeaderBytes + header.payload_bytes + sizeof(Digest));
  WD_TRY(fabric::read_all(stream, std::span(bytes).subspan(kHeaderBytes), deadline));
  return parse_message(bytes, key);
}

}  // namespace wideep::kv
