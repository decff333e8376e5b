// What `wideep up` runs: a model, groups of ranks, sidecars, picker, gateway. Read from YAML,
// strictly: a key that is not known is an error that names its line.
//
//   model: models/demo
//   gateway: {host: 127.0.0.1, port: 8080}
//   groups:
//   - {name: prefill, role: prefill, ranks: 2}
//   - {name: decode, role: decode, ranks: 2, flags: {max-num-seqs: 16}}
//
// All keys with their defaults: docs/up.md, `wideep up --print-config`.
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "launcher/supervisor.h"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::launcher {

enum class Role : uint8_t { kPrefill, kDecode };
std::string_view name(Role role);

// Which prompts a prefill rank computes, in the built-in picker configuration.
enum class Disaggregate : uint8_t {
  kLongPrompts,  // those of which the decode rank lacks more than a few tokens
  kAlways,
};
std::string_view name(Disaggregate disaggregate);

struct GroupConfig {
  std::string name;
  Role role = Role::kDecode;
  int64_t ranks = 1;           // they share the experts: expert parallel
  int64_t threads = 0;         // of each rank; 0: the cores, shared among all ranks
  Json flags{Json::Object{}};  // of `wideep serve`, by name without dashes
};

struct ClusterConfig {
  static constexpr int64_t kGroupsMax = 64;
  static constexpr int64_t kRanksMax = 256;  // of a group

  std::string model;
  std::vector<GroupConfig> groups;  // at least one that decodes

  std::string gateway_host = "127.0.0.1";
  int64_t gateway_port = 0;            // 0: one that is free
  Json gateway_flags{Json::Object{}};  // of `wideep gateway`

  Json sidecar_flags{Json::Object{}};  // of `wideep sidecar`, one per decode rank

  std::string picker_config;  // EndpointPickerConfig; "": picker_config_for(disaggregate)
  std::string picker_config_file;
  Disaggregate disaggregate = Disaggregate::kLongPrompts;

  // How long a prefill rank keeps a prompt's KV for a decode rank that does not ask for it.
  std::chrono::seconds kv_lease{30};

  RestartOptions restart;
  // A rank that was ready and has not been healthy for so long is taken for dead.
  std::chrono::seconds unhealthy_after{20};
  std::chrono::seconds start_timeout{1800};  // from a group's start until it is ready
  std::chrono::seconds stop_grace{35};       // between SIGTERM and SIGKILL at the end

  bool has_prefill() const;
  int64_t num_ranks() const;
};

// kInvalidArgument, with line and path.
Result<ClusterConfig> parse_cluster_config(std::string_view yaml);

// The same as YAML: every key, also those at their defaults. parse_cluster_config() reads it.
std::string to_yaml(const ClusterConfig& config);

struct Machine {
  int64_t num_cores = 1;
  int64_t memory_bytes = 0;  // that can be used
};

// Two prefill and two decode ranks; one of each on a single core; only decode ranks if the memory
// holds the model once and not twice.
ClusterConfig default_cluster(const std::string& model,
                              int64_t model_bytes,
                              const Machine& machine);

// The picker's configuration: the file's or the built-in one. That one has two endpoints for each
// request, so that the gateway has a fallback.
std::string picker_config(const ClusterConfig& config);

// {max-num-seqs: 16, enable-prefix-caching: false, api-key: [a, b]} as arguments:
// --max-num-seqs 16 --no-enable-prefix-caching --api-key a --api-key b. Maps are passed as JSON.
std::vector<std::string> flag_arguments(const Json& flags);

}  // namespace wideep::launcher
