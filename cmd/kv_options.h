// The flags of KV transfer between prefill and decode ranks: vLLM's --kv-transfer-config, where to
// serve, and the key.
#pragma once

#include "base/options.h"
#include "base/result.h"
#include "engine/engine.h"
#include "kv/kv_transfer.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace wideep::cmd {

struct KvFlags {
  std::string config;  // JSON; "": no KV transfer
  std::string host = "127.0.0.1";
  int64_t port = kPortDefault;
  std::string advertised_host;
  std::string key_file;

  static constexpr int64_t kPortDefault = 5600;  // of vLLM's side channel

  void declare(OptionSet& options);

  // Nothing without --kv-transfer-config. Reads the key; `rank` is this one's in its group.
  // kInvalidArgument with the flag or key at fault.
  Result<std::optional<kv::KvTransferOptions>> resolve(int64_t rank, bool insecure) const;
};

// The JSON of --kv-transfer-config. Keys and values that this program does not do are refused by
// name.
Result<kv::KvTransferOptions> parse_kv_transfer_config(std::string_view text);

// What the engine must know of it.
void apply(const kv::KvTransferOptions& kv, engine::EngineOptions& engine);

}  // namespace wideep::cmd
