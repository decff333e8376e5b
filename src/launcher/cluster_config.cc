#include "launcher/cluster_config.h"

#include "base/parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

namespace wideep::launcher {
namespace {

// What `wideep up` says itself, so that the parts of a deployment find each other.
constexpr std::array<std::string_view, 6> kOwnServeFlags = {
    "host", "port", "uds", "threads", "ready-file", "kv-transfer-config"};
constexpr std::array<std::string_view, 6> kOwnGatewayFlags = {
    "host", "port", "uds", "ready-file", "config-file", "endpoint"};
constexpr std::array<std::string_view, 5> kOwnSidecarFlags = {"host", "port", "uds", "ready-file",
                                                              "engine"};

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= 40 && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

class Reader {
 public:
  Reader(const Json& document, const YamlLines& lines) : document_(document), lines_(lines) {}

  Result<ClusterConfig> read() {
    Parameters top("", &document_, &lines_);
    config_.model = top.text("model", "");
    if (config_.model.empty()) top.complain("model", "the folder of a model");
    WD_TRY(read_groups(top));
    WD_TRY(read_gateway(top));
    WD_TRY(read_sidecar(top));
    WD_TRY(read_picker(top));
    WD_TRY(read_restart(top));
    config_.kv_lease = seconds(top, "kv_lease_s", config_.kv_lease);
    config_.stop_grace = seconds(top, "stop_grace_s", config_.stop_grace);
    WD_TRY(top.finish());
    return std::move(config_);
  }

 private:
  static std::chrono::seconds seconds(Parameters& map,
                                      std::string_view key,
                                      std::chrono::seconds fallback) {
    return std::chrono::seconds(map.integer(key, fallback.count(), 1));
  }

  Parameters section(Parameters& top, std::string_view key) const {
    return {std::string(key), top.any(key), &lines_};
  }

  template <size_t N>
  Status read_flags(Parameters& owner, const std::array<std::string_view, N>& own, Json* flags) {
    const Json* given = owner.any("flags");
    if (given == nullptr) return {};
    if (!given->is_object()) {
      owner.complain("flags", "a map from flags (without dashes) to values");
      return owner.finish();
    }
    Parameters members(owner.path("flags"), given, &lines_);
    for (const auto& [key, value] : *given->as_object()) {
      members.any(key);
      const bool is_own =
          std::ranges::find(own, key) != own.end() || key.starts_with("data-parallel-");
      if (is_own) members.complain(key, "left out: wideep up sets it");
    }
    *flags = *given;
    return members.finish();
  }

  Status read_groups(Parameters& top) {
    const Json* groups = top.any("groups");
    if (groups == nullptr || !groups->is_array() || groups->as_array()->empty() ||
        static_cast<int64_t>(groups->as_array()->size()) > ClusterConfig::kGroupsMax) {
      top.complain("groups", fmt::format("a list of 1 to {} groups", ClusterConfig::kGroupsMax));
      return top.finish();
    }
    std::set<std::string> names;
    for (const Json& item : *groups->as_array()) {
      Parameters members(fmt::format("groups[{}]", config_.groups.size()), &item, &lines_);
      GroupConfig group;
      group.name = members.text("name", "");
      const std::string role = members.choice("role", "decode", {"prefill", "decode"});
      group.role = role == "prefill" ? Role::kPrefill : Role::kDecode;
      group.ranks = members.integer("ranks", group.ranks, 1);
      group.threads = members.integer("threads", group.threads);
      if (group.ranks > ClusterConfig::kRanksMax)
        members.complain("ranks", fmt::format("at most {}", ClusterConfig::kRanksMax));
      if (!is_name(group.name))
        members.complain("name", "a word of lower-case letters, digits and dashes");
      if (!names.insert(group.name).second) members.complain("name", "unique among the groups");
      WD_TRY(read_flags(members, kOwnServeFlags, &group.flags));
      WD_TRY(members.finish());
      config_.groups.push_back(std::move(group));
    }
    if (std::ranges::find(config_.groups, Role::kDecode, &GroupConfig::role) ==
        config_.groups.end())
      top.complain("groups", "a list with a group of role decode");
    return {};
  }

  Status read_gateway(Parameters& top) {
    Parameters members = section(top, "gateway");
    config_.gateway_host = members.text("host", config_.gateway_host);
    config_.gateway_port = members.integer("port", config_.gateway_port);
    if (config_.gateway_port > 65535) members.complain("port", "0 to 65535");
    WD_TRY(read_flags(members, kOwnGatewayFlags, &config_.gateway_flags));
    return members.finish();
  }

  Status read_sidecar(Parameters& top) {
    Parameters members = section(top, "sidecar");
    WD_TRY(read_flags(members, kOwnSidecarFlags, &config_.sidecar_flags));
    return members.finish();
  }

  Status read_picker(Parameters& top) {
    Parameters members = section(top, "picker");
    config_.picker_config = members.text("config", "");
    config_.picker_config_file = members.text("config_file", "");
    const std::string word =
        members.choice("disaggregate", "long-prompts", {"long-prompts", "always"});
    config_.disaggregate = word == "always" ? Disaggregate::kAlways : Disaggregate::kLongPrompts;
    if (!config_.picker_config.empty() && !config_.picker_config_file.empty())
      members.complain("config_file", "left out: there is a config");
    return members.finish();
  }

  Status read_restart(Parameters& top) {
    using std::chrono::milliseconds;
    Parameters members = section(top, "restart");
    RestartOptions& restart = config_.restart;
    restart.restarts_max = static_cast<int>(
        std::min<int64_t>(members.integer("max_in_a_row", restart.restarts_max), INT32_MAX - 1));
    restart.backoff_first =
        milliseconds(members.integer("backoff_first_ms", restart.backoff_first.count(), 1));
    restart.backoff_max =
        milliseconds(members.integer("backoff_max_ms", restart.backoff_max.count(), 1));
    restart.stable_after =
        milliseconds(members.integer("stable_after_ms", restart.stable_after.count()));
    config_.unhealthy_after = seconds(members, "unhealthy_after_s", config_.unhealthy_after);
    config_.start_timeout = seconds(members, "start_timeout_s", config_.start_timeout);
    return members.finish();
  }

  const Json& document_;
  const YamlLines& lines_;
  ClusterConfig config_;
};

// A scalar or a map as YAML's flow form, which JSON is.
std::string inline_yaml(const Json& value) {
  return value.dump();
}

std::string block_text(const std::string& text) {
  if (text.empty()) return " \"\"\n";
  std::string block = " |\n";
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    block += "    " + text.substr(at, end - at) + "\n";
    at = end + 1;
  }
  return block;
}

}  // namespace

std::string_view name(Role role) {
  return role == Role::kPrefill ? "prefill" : "decode";
}

std::string_view name(Disaggregate disaggregate) {
  return disaggregate == Disaggregate::kAlways ? "always" : "long-prompts";
}

bool ClusterConfig::has_prefill() const {
  return std::ranges::find(groups, Role::kPrefill, &GroupConfig::role) != groups.end();
}

int64_t ClusterConfig::num_ranks() const {
  int64_t sum = 0;
  for (const GroupConfig& group : groups)
    sum += group.ranks;
  return sum;
}

Result<ClusterConfig> parse_cluster_config(std::string_view yaml) {
  YamlLines lines;
  WD_ASSIGN_OR_RETURN(const Json document, parse_yaml(yaml, &lines));
  if (!document.is_object()) return invalid_argument("a map is expected");
  return Reader(document, lines).read();
}

std::string to_yaml(const ClusterConfig& config) {
  std::string text = fmt::format("model: {}\ngroups:\n", inline_yaml(config.model));
  for (const GroupConfig& group : config.groups) {
    text +=
        fmt::format("- name: {}\n  role: {}\n  ranks: {}\n  threads: {}\n  flags: {}\n", group.name,
                    name(group.role), group.ranks, group.threads, inline_yaml(group.flags));
  }
  text += fmt::format("gateway:\n  host: {}\n  port: {}\n  flags: {}\n",
                      inline_yaml(config.gateway_host), config.gateway_port,
                      inline_yaml(config.gateway_flags));
  text += fmt::format("sidecar:\n  flags: {}\n", inline_yaml(config.sidecar_flags));
  text += fmt::format("picker:\n  disaggregate: {}\n", name(config.disaggregate));
  if (config.picker_config_file.empty()) {
    text += "  config:" + block_text(picker_config(config));
  } else {
    text += fmt::format("  config_file: {}\n", inline_yaml(config.picker_config_file));
  }
  text += fmt::format(
      "restart:\n  max_in_a_row: {}\n  backoff_first_ms: {}\n  backoff_max_ms: {}\n"
      "  stable_after_ms: {}\n  unhealthy_after_s: {}\n  start_timeout_s: {}\n",
      config.restart.restarts_max, config.restart.backoff_first.count(),
      config.restart.backoff_max.count(), config.restart.stable_after.count(),
      config.unhealthy_after.count(), config.start_timeout.count());
  return text + fmt::format("kv_lease_s: {}\nstop_grace_s: {}\n", config.kv_lease.count(),
                            config.stop_grace.count());
}

ClusterConfig default_cluster(const std::string& model,
                              int64_t model_bytes,
                              const Machine& machine) {
  // Weights in memory, and as much again while they are packed, KV and all else.
  constexpr double kShareOfModel = 1.5;
  ClusterConfig config;
  config.model = model;
  const int64_t ranks = machine.num_cores >= 2 ? 2 : 1;
  const bool holds_two = 2 * kShareOfModel * static_cast<double>(model_bytes) <
                         static_cast<double>(machine.memory_bytes);
  if (holds_two) {
    config.groups.push_back({.name = "prefill", .role = Role::kPrefill, .ranks = ranks});
  }
  config.groups.push_back({.name = "decode", .role = Role::kDecode, .ranks = ranks});
  return config;
}

std::string picker_config(const ClusterConfig& config) {
  if (!config.picker_config.empty()) return config.picker_config;
  if (!config.has_prefill()) {
    return "apiVersion: llm-d.ai/v1alpha1\n"
           "kind: EndpointPickerConfig\n"
           "plugins:\n"
           "- {type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}\n"
           "schedulingProfiles:\n"
           "- name: decode\n"
           "  plugins:\n"
           "  - {pluginRef: queue-scorer, weight: 2}\n"
           "  - {pluginRef: active-request-scorer, weight: 2}\n"
           "  - {pluginRef: prefix-cache-scorer, weight: 3}\n"
           "  - {pluginRef: max-score-picker}\n";
  }
  const bool always = config.disaggregate == Disaggregate::kAlways;
  return "apiVersion: llm-d.ai/v1alpha1\n"
         "kind: EndpointPickerConfig\n"
         "plugins:\n"
         "- {type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}\n" +
         std::string(always ? "- {name: decider, type: always-disagg-pd-decider}\n"
                            : "- {name: decider, type: prefix-based-pd-decider, parameters: "
                              "{nonCachedTokens: 16}}\n") +
         "- {type: disagg-profile-handler, parameters: {deciders: {prefill: decider}}}\n"
         "schedulingProfiles:\n"
         "- name: prefill\n"
         "  plugins:\n"
         "  - {pluginRef: prefill-filter}\n"
         "  - {pluginRef: queue-scorer, weight: 1}\n"
         "  - {pluginRef: prefix-cache-scorer, weight: 2}\n"
         "  - {pluginRef: max-score-picker}\n"
         "- name: decode\n"
         "  plugins:\n"
         "  - {pluginRef: decode-filter}\n"
         "  - {pluginRef: queue-scorer, weight: 1}\n"
         "  - {pluginRef: active-request-scorer, weight: 1}\n"
         "  - {pluginRef: prefix-cache-scorer, weight: 2}\n"
         "  - {pluginRef: max-score-picker}\n";
}

std::vector<std::string> flag_arguments(const Json& flags) {
  std::vector<std::string> arguments;
  const auto text = [](const Json& value) {
    return value.is_string() ? *value.as_string() : value.dump();
  };
  for (const auto& [key, value] : *flags.as_object()) {
    if (value.is_bool()) {
      arguments.push_back((*value.as_bool() ? "--" : "--no-") + key);
      continue;
    }
    const Json::Array one = {value};
    for (const Json& item : value.is_array() ? *value.as_array() : one) {
      arguments.push_back("--" + key);
      arguments.push_back(text(item));
    }
  }
  return arguments;
}

}  // namespace wideep::launcher
