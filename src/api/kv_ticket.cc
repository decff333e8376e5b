#include "api/kv_ticket.h"

#include "base/byte_codec.h"
#include "base/check.h"

#include <cstring>

namespace wideep::api {
namespace {

constexpr std::string_view kMagic = "WDKT";

Result<KvTicket> parse_body(ByteReader& reader) {
  KvTicket ticket;
  ticket.engine_id = reader.text(KvTicket::kTextBytesMax);
  ticket.epoch = reader.number<uint64_t>();
  ticket.host = reader.text(KvTicket::kTextBytesMax);
  ticket.port = reader.number<uint16_t>();
  ticket.consumer_group = reader.text(KvTicket::kTextBytesMax);
  ticket.request_id = reader.text(KvTicket::kTextBytesMax);
  ticket.lease_id = reader.number<uint64_t>();
  reader.bytes(ticket.prompt_hash);
  ticket.num_tokens = reader.number<int64_t>();
  reader.bytes(ticket.compatibility);
  const auto num_blocks = reader.number<uint32_t>();
  constexpr size_t kBlockBytes = 8;
  if (reader.failed() || ticket.num_tokens < 0 || num_blocks > KvTicket::kBlocksMax ||
      reader.remaining() != num_blocks * kBlockBytes) {
    return invalid_argument("malformed KV ticket");
  }
  for (uint32_t i = 0; i < num_blocks; ++i) {
    const auto id = static_cast<BlockId>(reader.number<int32_t>());
    ticket.blocks.push_back({id, reader.number<uint32_t>()});
  }
  return ticket;
}

}  // namespace

std::string seal(const KvTicket& ticket, const KvKey& key) {
  for (const std::string* text :
       {&ticket.engine_id, &ticket.host, &ticket.consumer_group, &ticket.request_id})
    WD_CHECK(text->size() <= KvTicket::kTextBytesMax);
  ByteWriter writer;
  writer.bytes(std::as_bytes(std::span(kMagic)));
  writer.number(KvTicket::kVersion);
  writer.number(key.id);
  writer.text(ticket.engine_id);
  writer.number(ticket.epoch);
  writer.text(ticket.host);
  writer.number(ticket.port);
  writer.text(ticket.consumer_group);
  writer.text(ticket.request_id);
  writer.number(ticket.lease_id);
  writer.bytes(ticket.prompt_hash);
  writer.number(ticket.num_tokens);
  writer.bytes(ticket.compatibility);
  writer.number(static_cast<uint32_t>(ticket.blocks.size()));
  for (const KvTicket::Block& block : ticket.blocks) {
    writer.number(index(block.id));
    writer.number(block.generation);
  }
  writer.bytes(hmac_sha256(key.secret, writer.out()));
  return to_base64url(writer.out());
}

Result<KvTicket> open_ticket(std::string_view text, std::span<const KvKey> keys) {
  if (text.size() > KvTicket::kSealedBytesMax)
    return invalid_argument("KV ticket of {} bytes", text.size());
  const auto bytes = from_base64url(text);
  const size_t head_bytes = kMagic.size() + 2;
  if (!bytes || bytes->size() < head_bytes + sizeof(Digest) ||
      std::memcmp(bytes->data(), kMagic.data(), kMagic.size()) != 0) {
    return invalid_argument("not a KV ticket");
  }
  const auto version = std::to_integer<uint8_t>((*bytes)[kMagic.size()]);
  const auto key_id = std::to_integer<uint8_t>((*bytes)[kMagic.size() + 1]);
  if (version != KvTicket::kVersion) {
    return invalid_argument("KV ticket of version {}, {} is spoken here", version,
                            KvTicket::kVersion);
  }
  const auto body = std::span(*bytes).first(bytes->size() - sizeof(Digest));
  const auto mac = std::span(*bytes).last(sizeof(Digest));
  bool is_genuine = false;
  for (const KvKey& key : keys) {
    if (key.id == key_id && equal_constant_time(hmac_sha256(key.secret, body), mac))
      is_genuine = true;
  }
  if (!is_genuine)
    return error(ErrorCode::kDataLoss, "KV ticket with a wrong MAC (key {})", key_id);
  ByteReader reader(body.subspan(head_bytes));
  return parse_body(reader);
}

Json to_kv_transfer_params(const KvTicket& ticket, const KvKey& key) {
  Json ids{Json::Array{}};
  for (const KvTicket::Block& block : ticket.blocks)
    ids.append(index(block.id));
  Json params;
  params.set("do_remote_prefill", true);
  params.set("do_remote_decode", false);
  params.set("remote_block_ids", Json(Json::Array{std::move(ids)}));
  params.set("remote_engine_id", ticket.engine_id);
  params.set("remote_request_id", ticket.request_id);
  params.set("remote_host", ticket.host);
  params.set("remote_port", ticket.port);
  for (const char* size : {"tp_size", "pp_size", "dcp_size"})
    params.set(size, 1);
  params.set("transfer_mode", "pull");
  params.set("remote_num_tokens", ticket.num_tokens);
  params.set("ticket", seal(ticket, key));
  return params;
}

}  // namespace wideep::api
