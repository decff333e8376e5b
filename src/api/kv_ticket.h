// The right to pull a request's KV from the rank that computed it.
//
// A prefill rank issues it with its answer; the sidecar carries it, opaque, to the decode rank,
// which shows it when it pulls. The MAC covers everything, so that only a rank of the cluster can
// have made it; the decode rank compares the hash of the prompt tokens with its own request, so
// that two requests mixed up between the legs cannot pass. Which ticket is still valid only the
// issuer knows (the lease, by its own clock). Thread: plain values.
#pragma once

#include "base/hash.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/result.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::api {

struct KvTicket {
  static constexpr uint8_t kVersion = 1;
  static constexpr int64_t kBlocksMax = 1 << 18;
  static constexpr size_t kSealedBytesMax = size_t{3} << 20;
  static constexpr size_t kTextBytesMax = 256;

  struct Block {
    BlockId id{};
    uint32_t generation = 0;
    bool operator==(const Block&) const = default;
  };

  std::string engine_id;  // of the issuer: new at every start
  uint64_t epoch = 0;
  std::string host;  // where to pull from
  uint16_t port = 0;
  std::string consumer_group;  // who may pull; "": any rank with the key
  std::string request_id;
  uint64_t lease_id = 0;
  Digest prompt_hash{};    // chained hash of the prompt tokens, with salt and NumericConfig
  int64_t num_tokens = 0;  // that the blocks hold
  Digest compatibility{};  // of wire protocol, model fingerprint, NumericConfig, KV layout
  std::vector<Block> blocks;

  bool operator==(const KvTicket&) const = default;
};

// A key with the id under which both sides know it, so that keys can be changed while tickets are
// under way.
struct KvKey {
  uint8_t id = 0;
  std::vector<std::byte> secret;
};

// The ticket as text (base64url), with its MAC.
std::string seal(const KvTicket& ticket, const KvKey& key);
// The ticket back, if one of `keys` made its MAC. kInvalidArgument: not a ticket, another version,
// a limit; kDataLoss: the MAC is wrong.
Result<KvTicket> open_ticket(std::string_view text, std::span<const KvKey> keys);

// As vLLM's connectors shape it: {do_remote_prefill, remote_block_ids, remote_engine_id,
// remote_host, remote_port, …} with the sealed ticket as "ticket".
Json to_kv_transfer_params(const KvTicket& ticket, const KvKey& key);

}  // namespace wideep::api
