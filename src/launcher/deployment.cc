#include "launcher/deployment.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace wideep::launcher {
namespace {

constexpr const char* kLoopback = "127.0.0.1";
// Variables that stand for flags are meant for us, not for our children.
constexpr const char* kFlagVariables = "WIDEEP_";

void append(std::vector<std::string>& arguments, std::vector<std::string> more) {
  arguments.insert(arguments.end(), std::make_move_iterator(more.begin()),
                   std::make_move_iterator(more.end()));
}

class Planner {
 public:
  Planner(const ClusterConfig& config, const DeploymentPlace& place, net::HeldPorts& ports)
      : config_(config), place_(place), ports_(ports) {}

  Result<Deployment> plan() {
    deployment_.endpoints_file = place_.folder + "/endpoints.yaml";
    restart_ = config_.restart;
    restart_.hopeless_codes = place_.hopeless_codes;
    for (const GroupConfig& group : config_.groups)
      WD_TRY(add_group(group));
    if (config_.has_prefill()) {
      for (RankPlan& rank : deployment_.ranks) {
        if (rank.role == Role::kDecode) WD_TRY(add_sidecar(rank));
      }
    }
    WD_TRY(add_gateway());
    return std::move(deployment_);
  }

 private:
  // LeaderWorkerSet's contract: a leader, its workers, one address to meet at, three variables.
  Status add_group(const GroupConfig& group) {
    WD_ASSIGN_OR_RETURN(const net::Address meeting, ports_.hold(kLoopback));
    // Ranks that have lost one of them first tell their clients.
    constexpr std::chrono::milliseconds kFarewell{3'000};
    GroupSpec spec{.name = group.name, .members = {}, .restart = restart_, .farewell = kFarewell};
    for (int64_t rank = 0; rank < group.ranks; ++rank) {
      WD_ASSIGN_OR_RETURN(const net::Address address, ports_.hold(kLoopback));
      const std::string name = fmt::format("{}-{}", group.name, rank);
      ProcessSpec process{.name = name,
                          .command = rank_command(group, rank, address, meeting),
                          .environment = {{"LWS_LEADER_ADDRESS", meeting.host},
                                          {"LWS_GROUP_SIZE", std::to_string(group.ranks)},
                                          {"LWS_WORKER_INDEX", std::to_string(rank)}},
                          .dropped_prefix = kFlagVariables};
      spec.members.push_back(std::move(process));
      deployment_.ranks.push_back(
          {.name = name, .role = group.role, .member = deployment_.members.size(), .sidecar = {}});
      deployment_.members.push_back({.name = name,
                                     .group = group.name,
                                     .index = static_cast<size_t>(rank),
                                     .kind = Member::Kind::kRank,
                                     .address = address});
    }
    deployment_.groups.push_back(std::move(spec));
    return {};
  }

  std::vector<std::string> rank_command(const GroupConfig& group,
                                        int64_t rank,
                                        const net::Address& address,
                                        const net::Address& meeting) const {
    const int64_t share = std::max<int64_t>(1, place_.num_cores / config_.num_ranks());
    std::vector<std::string> command = {place_.program,
                                        "serve",
                                        config_.model,
                                        "--host",
                                        address.host,
                                        "--port",
                                        std::to_string(address.port),
                                        "--threads",
                                        std::to_string(group.threads > 0 ? group.threads : share)};
    if (group.ranks > 1) append(command, group_flags(group, rank, meeting));
    if (config_.has_prefill()) append(command, kv_flags(group.role));
    append(command, flag_arguments(group.flags));
    return command;
  }

  std::vector<std::string> group_flags(const GroupConfig& group,
                                       int64_t rank,
                                       const net::Address& meeting) const {
    std::vector<std::string> flags = {"--enable-expert-parallel"};
    append(flags, {"--data-parallel-size", std::to_string(group.ranks)});
    append(flags, {"--data-parallel-rank", std::to_string(rank)});
    append(flags, {"--data-parallel-address", meeting.host});
    append(flags, {"--data-parallel-rpc-port", std::to_string(meeting.port)});
    append(flags, {"--data-parallel-key-file", place_.group_key_file});
    return flags;
  }

  std::vector<std::string> kv_flags(Role role) const {
    Json config;
    config.set("kv_connector", "NixlConnector");
    config.set("kv_role", role == Role::kPrefill ? "kv_producer" : "kv_consumer");
    // A prefill rank that dies between the two legs must not fail the request.
    config.set("kv_load_failure_policy", "recompute");
    Json extra;
    extra.set("kv_lease_duration", config_.kv_lease.count());
    config.set("kv_connector_extra_config", std::move(extra));
    std::vector<std::string> flags = {"--kv-transfer-config", config.dump()};
    append(flags, {"--kv-port", "0"});
    append(flags, {"--kv-key-file", place_.kv_key_file});
    return flags;
  }

  // A single process that is started again on its own.
  void add_single(Member member, std::vector<std::string> command) {
    deployment_.groups.push_back({.name = member.group,
                                  .members = {{.name = member.name,
                                               .command = std::move(command),
                                               .environment = {},
                                               .dropped_prefix = kFlagVariables}},
                                  .restart = restart_});
    deployment_.members.push_back(std::move(member));
  }

  Status add_sidecar(RankPlan& rank) {
    WD_ASSIGN_OR_RETURN(const net::Address address, ports_.hold(kLoopback));
    const Member& engine = deployment_.members[rank.member];
    std::vector<std::string> command = {place_.program, "sidecar",
                                        "--host",       address.host,
                                        "--port",       std::to_string(address.port),
                                        "--engine",     engine.address.to_string()};
    for (const RankPlan& other : deployment_.ranks) {
      if (other.role == Role::kPrefill) {
        append(command, {"--allow-prefill", deployment_.members[other.member].address.to_string()});
      }
    }
    if (config_.sidecar_flags.find("prefill-failure-policy") == nullptr)
      append(command, {"--prefill-failure-policy", "decode-only"});
    append(command, {"--route-headers"});
    append(command, flag_arguments(config_.sidecar_flags));
    const std::string name = "sidecar-" + rank.name;
    rank.sidecar = deployment_.members.size();
    add_single({.name = name,
                .group = name,
                .index = 0,
                .kind = Member::Kind::kSidecar,
                .address = address},
               std::move(command));
    return {};
  }

  Status add_gateway() {
    WD_ASSIGN_OR_RETURN(
        deployment_.gateway,
        ports_.hold(config_.gateway_host, static_cast<uint16_t>(config_.gateway_port)));
    std::vector<std::string> command = {
        place_.program,     "gateway",
        "--host",           deployment_.gateway.host,
        "--port",           std::to_string(deployment_.gateway.port),
        "--endpoints-file", deployment_.endpoints_file,
        "--expose-routes"};
    if (!config_.picker_config_file.empty()) {
      append(command, {"--config-file", config_.picker_config_file});
    } else {
      append(command, {"--config-text", picker_config(config_)});
    }
    if (!place_.client_key_file.empty())
      append(command, {"--api-key-file", place_.client_key_file});
    append(command, flag_arguments(config_.gateway_flags));
    add_single({.name = "gateway",
                .group = "gateway",
                .index = 0,
                .kind = Member::Kind::kGateway,
                .address = deployment_.gateway},
               std::move(command));
    return {};
  }

  const ClusterConfig& config_;
  const DeploymentPlace& place_;
  net::HeldPorts& ports_;
  RestartOptions restart_;
  Deployment deployment_;
};

}  // namespace

bool Deployment::is_complete(std::string_view gateway_health) const {
  const auto answer = parse_json(gateway_health);
  const Json* count = answer ? answer->find("endpoints") : nullptr;
  return count != nullptr && count->as_int() == static_cast<int64_t>(ranks.size());
}

std::string Deployment::endpoints(FunctionRef<bool(const RankPlan&)> is_ready) const {
  std::string text = "endpoints:\n";
  bool is_empty = true;
  for (const RankPlan& rank : ranks) {
    if (!is_ready(rank)) continue;
    const net::Address& address = endpoint_of(rank).address;
    text +=
        fmt::format("- {{name: {}, address: {}, port: \"{}\", labels: {{llm-d.ai/role: {}}}}}\n",
                    rank.name, address.host, address.port, launcher::name(rank.role));
    is_empty = false;
  }
  return is_empty ? "endpoints: []\n" : text;
}

Result<Deployment> plan_deployment(const ClusterConfig& config,
                                   const DeploymentPlace& place,
                                   net::HeldPorts& ports) {
  return Planner(config, place, ports).plan();
}

}  // namespace wideep::launcher
