#include "cmd/kv_options.h"

#include "cmd/key_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace wideep::cmd {
namespace {

constexpr std::string_view kConnector = "NixlConnector";

std::unexpected<Error> wrong(std::string_view key, std::string_view what) {
  return invalid_argument("--kv-transfer-config: '{}' {}", key, what);
}

Result<std::string> text(std::string_view key, const Json& value) {
  if (value.as_string() == nullptr) return wrong(key, "must be a string");
  return *value.as_string();
}

Result<int64_t> integer(std::string_view key, const Json& value, int64_t min, int64_t max) {
  const auto number = value.as_int();
  if (!number || *number < min || *number > max)
    return wrong(key, fmt::format("must be an integer from {} to {}", min, max));
  return *number;
}

Status read_role(const std::string& role, kv::KvTransferOptions& kv) {
  kv.produces = role == "kv_producer" || role == "kv_both";
  kv.consumes = role == "kv_consumer" || role == "kv_both";
  if (kv.produces || kv.consumes) return {};
  return wrong("kv_role", "must be kv_producer, kv_consumer or kv_both");
}

Status read_transports(const Json& value, kv::KvTransferOptions& kv) {
  constexpr std::string_view kKey = "kv_connector_extra_config.backends";
  const Json::Array* names = value.as_array();
  if (names == nullptr || names->empty()) return wrong(kKey, "must be a list of shm and tcp");
  kv.puller.link.use_shared_memory = kv.puller.link.use_tcp = false;
  for (const Json& entry : *names) {
    WD_ASSIGN_OR_RETURN(const std::string transport, text(kKey, entry));
    if (transport == name(kv::Transport::kSharedMemory))
      kv.puller.link.use_shared_memory = true;
    else if (transport == name(kv::Transport::kTcp))
      kv.puller.link.use_tcp = true;
    else
      return wrong(kKey, fmt::format("has '{}', there are shm and tcp", transport));
  }
  kv.server.offer_shared_memory = kv.puller.link.use_shared_memory;
  return {};
}

Status read_extra(const Json& extra, kv::KvTransferOptions& kv) {
  constexpr int64_t kLeaseSecondsMax = 24 * 3600;
  constexpr int64_t kThreadsMax = 64;
  const std::string prefix = "kv_connector_extra_config.";
  if (!extra.is_object()) return wrong("kv_connector_extra_config", "must be an object");
  for (const auto& [key, value] : *extra.as_object()) {
    if (key == "kv_lease_duration") {
      WD_ASSIGN_OR_RETURN(const int64_t seconds, integer(prefix + key, value, 1, kLeaseSecondsMax));
      kv.puller.lease_duration = std::chrono::seconds(seconds);
    } else if (key == "num_threads") {
      WD_ASSIGN_OR_RETURN(const int64_t threads, integer(prefix + key, value, 1, kThreadsMax));
      kv.puller.num_threads = static_cast<int>(threads);
    } else if (key == "backends") {
      WD_TRY(read_transports(value, kv));
    } else if (key == "enforce_handshake_compat") {
      if (value != Json(true)) return wrong(prefix + key, "is always true here");
    } else {
      return wrong(prefix + key, "is not implemented");
    }
  }
  return {};
}

Status read_policy(const std::string& policy, kv::KvTransferOptions& kv) {
  kv.recompute_on_failure = policy == "recompute";
  if (policy == "fail" || policy == "recompute") return {};
  return wrong("kv_load_failure_policy", "must be fail or recompute");
}

Status read_member(const std::string& key, const Json& value, kv::KvTransferOptions& kv) {
  if (key == "kv_connector_extra_config") return read_extra(value, kv);
  constexpr std::array<std::string_view, 5> kTexts = {
      "kv_connector", "kv_role", "kv_load_failure_policy", "kv_buffer_device", "engine_id"};
  if (std::ranges::find(kTexts, key) == kTexts.end()) return wrong(key, "is not implemented");
  WD_ASSIGN_OR_RETURN(const std::string word, text(key, value));
  if (key == "kv_role") return read_role(word, kv);
  if (key == "kv_load_failure_policy") return read_policy(word, kv);
  if (key == "engine_id") kv.engine_id = word;
  if (key == "kv_buffer_device" && word != "cpu") return wrong(key, "must be cpu: there is no GPU");
  if (key == "kv_connector" && word != kConnector)
    return wrong(key, fmt::format("is '{}', there is {}", word, kConnector));
  return {};
}

}  // namespace

void KvFlags::declare(OptionSet& options) {
  options.add("--kv-transfer-config", &config,
              {.group = "KV transfer",
               .help = "Hand-over of KV between prefill and decode ranks, as vLLM writes it: "
                       R"({"kv_connector":"NixlConnector","kv_role":"kv_both"}.)",
               .value_name = "JSON"});
  options.add("--kv-host", &host,
              {.group = "KV transfer", .help = "Address where decode ranks pull KV from."});
  options.add(
      "--kv-port", &port,
      {.group = "KV transfer",
       .help = "Its port, to which a rank of a group adds its number; 0: one that is free."});
  options.add("--kv-advertise-host", &advertised_host,
              {.group = "KV transfer",
               .help = "The host that decode ranks call, if it is not --kv-host.",
               .value_name = "HOST"});
  options.add("--kv-key-file", &key_file,
              {.group = "KV transfer",
               .help = "A secret that prefill and decode ranks share; without it KV stays on this "
                       "host, or --insecure.",
               .value_name = "FILE"});
}

Result<std::optional<kv::KvTransferOptions>> KvFlags::resolve(int64_t rank, bool insecure) const {
  if (config.empty()) return std::nullopt;
  WD_ASSIGN_OR_RETURN(kv::KvTransferOptions kv, parse_kv_transfer_config(config));
  const int64_t listen_port = port == 0 ? 0 : port + rank;
  if (listen_port < 0 || listen_port > UINT16_MAX)
    return invalid_argument("--kv-port {}: 0 to {} is expected", listen_port, UINT16_MAX);
  kv.listen = {.host = host, .port = static_cast<uint16_t>(listen_port), .path = {}};
  kv.advertised_host = advertised_host;
  kv.insecure = insecure;
  if (!key_file.empty()) {
    WD_ASSIGN_OR_RETURN(kv.key, read_key_file(key_file));
  }
  if (kv.produces && !kv.key && !insecure && !net::is_loopback(kv.listen))
    return invalid_argument("--kv-host {} can be reached from outside: give --kv-key-file", host);
  return kv;
}

Result<kv::KvTransferOptions> parse_kv_transfer_config(std::string_view text) {
  const Result<Json> json = parse_json(text);
  if (!json) return with_context(json.error(), "--kv-transfer-config");
  if (!json->is_object()) return invalid_argument("--kv-transfer-config is no JSON object");
  for (const char* key : {"kv_connector", "kv_role"})
    if (json->find(key) == nullptr) return wrong(key, "is missing");
  kv::KvTransferOptions kv;
  for (const auto& [key, value] : *json->as_object())
    WD_TRY(read_member(key, value, kv));
  return kv;
}

void apply(const kv::KvTransferOptions& kv, engine::EngineOptions& engine) {
  engine.produces_kv = kv.produces;
  engine.consumes_kv = kv.consumes;
  engine.recompute_failed_pulls = kv.recompute_on_failure;
  engine.leases.duration = kv.puller.lease_duration;
}

}  // namespace wideep::cmd
