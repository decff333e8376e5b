#include "cmd/group_flags.h"

#include "cmd/key_file.h"
#include "fabric/fabric.h"

#include <algorithm>
#include <charconv>

namespace wideep::cmd {
namespace {

constexpr const char* kGroup = "Parallel";

Result<int32_t> small_number(const std::string& name, const std::string& text) {
  int32_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size() || value < 0)
    return invalid_argument("{}: '{}' is no count", name, text);
  return value;
}

// A host, or unix:PATH for ranks that all run here.
Result<net::Address> leader_address(std::string text, int64_t port) {
  if (text.starts_with("unix:")) return net::parse_address(text);
  if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
  if (std::ranges::count(text, ':') == 1)  // an IPv6 address has more
    return invalid_argument("'{}': a host without a port, which is --data-parallel-rpc-port", text);
  if (port < 1 || port > UINT16_MAX)
    return invalid_argument("--data-parallel-rpc-port {}: 1 to 65535 is expected", port);
  return net::Address{.host = text, .port = static_cast<uint16_t>(port), .path = {}};
}

}  // namespace

Result<std::optional<LwsEnvironment>> LwsEnvironment::read() {
  const auto leader = environment_variable("LWS_LEADER_ADDRESS");
  const auto size = environment_variable("LWS_GROUP_SIZE");
  const auto worker = environment_variable("LWS_WORKER_INDEX");
  if (!leader && !size && !worker) return std::nullopt;
  if (!leader || !size || !worker)
    return invalid_argument(
        "LWS_LEADER_ADDRESS, LWS_GROUP_SIZE and LWS_WORKER_INDEX belong together: set all or none");
  if (leader->empty()) return invalid_argument("LWS_LEADER_ADDRESS is empty");
  LwsEnvironment lws{.leader_address = *leader};
  WD_ASSIGN_OR_RETURN(lws.group_size, small_number("LWS_GROUP_SIZE", *size));
  WD_ASSIGN_OR_RETURN(lws.worker_index, small_number("LWS_WORKER_INDEX", *worker));
  if (lws.worker_index >= lws.group_size)
    return invalid_argument("LWS_WORKER_INDEX {} of a group of {}", lws.worker_index,
                            lws.group_size);
  return lws;
}

void GroupFlags::declare(OptionSet& options) {
  options.add("--data-parallel-size", &size,
              {.group = kGroup,
               .help = "Ranks in all, over all hosts; 0: one, or as many as LeaderWorkerSet says.",
               .alias = "-dp"});
  options.add("--data-parallel-size-local", &size_local,
              {.group = kGroup,
               .help = "Ranks on this host (in this pod); 0: all of them, or, under "
                       "LeaderWorkerSet, an even share.",
               .alias = "-dpl"});
  options.add("--data-parallel-start-rank", &start_rank,
              {.group = kGroup,
               .help = "First rank of this host; -1: 0, or what LeaderWorkerSet says.",
               .alias = "-dpr"});
  options.add("--data-parallel-rank", &rank,
              {.group = kGroup,
               .help = "This process is this one rank, with an API of its own; -1: it starts the "
                       "ranks of this host and balances over them.",
               .alias = "-dpn"});
  options.add("--data-parallel-hybrid-lb", &hybrid_lb,
              {.group = kGroup,
               .help = "Each host has an API, which balances over the ranks of that host; so it "
                       "is also where --data-parallel-start-rank is given without --headless.",
               .alias = "-dph"});
  options.add("--headless", &headless,
              {.group = kGroup,
               .help = "No API here: that of the host of rank 0 balances over the ranks of this "
                       "host too. --host, --port and keys of clients mean nothing then."});
  options.add("--data-parallel-external-lb", &external_lb,
              {.group = kGroup,
               .help = "This process is one rank with an API of its own: what --data-parallel-rank "
                       "and a pod of one rank mean anyway.",
               .alias = "-dpe"});
  options.add("--data-parallel-multi-port-external-lb", &multi_port_lb,
              {.group = kGroup,
               .help = "Each rank of this host has an API and /metrics of its own, at --port plus "
                       "its place on the host, and nobody balances. All of them end with the "
                       "first that ends.",
               .alias = "-dpm"});
  options.add("--data-parallel-supervisor-port", &supervisor_port,
              {.group = kGroup,
               .help = "Where /health, /ready and /readyz then tell whether all ranks of this host "
                       "serve; 0: a port that is free."});
  options.refuse("--data-parallel-backend", "ranks are processes", {"mp"});
  options.add("--enable-expert-parallel", &expert_parallel,
              {.group = kGroup,
               .help = "Spread the experts over the ranks; without it each rank holds them all.",
               .alias = "-ep"});
  declare_meeting(options);
  declare_placement(options);
}

void GroupFlags::declare_meeting(OptionSet& options) {
  options.add("--data-parallel-address", &address,
              {.group = kGroup,
               .help = "Host of rank 0, where the ranks meet, or unix:PATH; if empty, "
                       "LWS_LEADER_ADDRESS or this host.",
               .value_name = "HOST",
               .alias = "-dpa"});
  options.add("--data-parallel-rpc-port", &rpc_port,
              {.group = kGroup,
               .help = "Port at which the ranks meet; hosts without an API call at the next one.",
               .alias = "-dpp"});
  options.add("--data-parallel-host", &host,
              {.group = kGroup,
               .help = "This host, as the other ranks reach it; if empty, the address from which "
                       "it reaches rank 0.",
               .value_name = "HOST"});
  options.add("--data-parallel-key-file", &key_file,
              {.group = kGroup,
               .help = "A secret that all hosts share: it authenticates and encrypts what passes "
                       "between them.",
               .value_name = "FILE"});
  options.add("--data-parallel-transport", &transport,
              {.group = kGroup,
               .help = "How ranks of different hosts reach each other; ucx is for InfiniBand and "
                       "RoCE, does not encrypt and needs --insecure. Ranks of one host share "
                       "memory.",
               .choices = {"tcp", "ucx"}});
  options.add("--data-parallel-start-timeout", &start_timeout,
              {.group = kGroup, .help = "How long ranks wait for each other to come and to load."});
  options.add("--node-id", &node_id,
              {.group = kGroup,
               .help = "Ranks with equal numbers count as one host; -1: those that are. For trying "
                       "several hosts on one."});
}

void GroupFlags::declare_placement(OptionSet& options) {
  options.add("--expert-load-file", &expert_load_file,
              {.group = kGroup,
               .help = "What GET /expert_load said of a former run: experts are placed so that "
                       "the ranks come out even. The same file on all hosts.",
               .value_name = "FILE"});
  options.add("--eplb-config", &eplb_config,
              {.group = kGroup,
               .help = "JSON: {\"num_redundant_experts\": N} gives the busiest experts N more "
                       "places.",
               .value_name = "JSON"});
}

Result<GroupPlan> GroupFlags::resolve(const std::optional<LwsEnvironment>& lws) const {
  GroupPlan plan{.expert_parallel = expert_parallel};
  WD_ASSIGN_OR_RETURN(plan.leader, leader_address(!address.empty() ? address
                                                  : lws            ? lws->leader_address
                                                                   : "127.0.0.1",
                                                  rpc_port));
  WD_TRY(place_ranks(plan, lws));
  plan.placement.load_file = expert_load_file;
  WD_ASSIGN_OR_RETURN(plan.placement.num_redundant_experts, parse_eplb_config(eplb_config));
  if (!expert_parallel && (!expert_load_file.empty() || !eplb_config.empty()))
    return invalid_argument("--expert-load-file and --eplb-config need --enable-expert-parallel");
  const bool is_default_pod = lws && size_local == 0 && plan.num_local == 1;
  WD_TRY(check_door(plan, is_default_pod));
  WD_TRY(choose_door(plan, is_default_pod));
  return plan;
}

// How many ranks there are, and which of them are on this host. `plan.leader` is set.
Status GroupFlags::place_ranks(GroupPlan& plan, const std::optional<LwsEnvironment>& lws) const {
  const auto given = [](int64_t value) { return value > 0; };
  const int64_t pods = lws ? lws->group_size : 1;
  const int64_t num_ranks = given(size) ? size : pods * (given(size_local) ? size_local : 1);
  if (num_ranks < 1 || num_ranks > fabric::kRanksMax)
    return invalid_argument("--data-parallel-size {}: 1 to {} is expected", num_ranks,
                            fabric::kRanksMax);
  if (rank >= num_ranks)
    return invalid_argument("--data-parallel-rank {}, and --data-parallel-size {}", rank,
                            num_ranks);
  // Ranks that are started one by one are on this host if they meet on it.
  const int64_t elsewhere = rank >= 0 && !net::is_loopback(plan.leader) ? 1 : num_ranks;
  if (lws && !given(size_local) && num_ranks % pods != 0)
    return invalid_argument("--data-parallel-size {} over {} pods: give --data-parallel-size-local",
                            num_ranks, pods);
  int64_t num_local = given(size_local) ? size_local : lws ? num_ranks / pods : elsewhere;
  int64_t first = 0;
  if (start_rank >= 0) {
    first = start_rank;
  } else if (rank >= 0) {
    first = rank / num_local * num_local;
  } else if (lws) {
    first = lws->worker_index * num_local;
  }
  if (rank >= 0 && start_rank < 0 && first < num_ranks)
    num_local = std::min(num_local, num_ranks - first);  // the last host may have fewer
  if (start_rank > 0 && !given(size_local) && rank < 0 && !lws)
    return invalid_argument("--data-parallel-start-rank needs --data-parallel-size-local");
  if (first < 0 || num_local > num_ranks || first + num_local > num_ranks)
    return invalid_argument("ranks {} to {} of this host do not fit into --data-parallel-size {}",
                            first, first + num_local - 1, num_ranks);
  if (rank >= 0 && (rank < first || rank >= first + num_local))
    return invalid_argument("--data-parallel-rank {} is not one of ranks {} to {} of this host",
                            rank, first, first + num_local - 1);
  plan.num_ranks = static_cast<int32_t>(num_ranks);
  plan.first_local = static_cast<int32_t>(first);
  plan.num_local = static_cast<int32_t>(num_local);
  if (rank >= 0) plan.rank = static_cast<int32_t>(rank);
  return {};
}

// Flags about the door that exclude each other.
Status GroupFlags::check_door(const GroupPlan& plan, bool is_default_pod) const {
  if (headless && (plan.rank || hybrid_lb || plan.first_local == 0))
    return invalid_argument(
        "--headless is for hosts other than that of rank 0, without --data-parallel-rank and "
        "--data-parallel-hybrid-lb: they have an API");
  if (headless && is_default_pod)
    return invalid_argument(
        "--headless: under LeaderWorkerSet a pod of one rank has its own API, unless "
        "--data-parallel-size-local 1 is given, to the leader too");
  if (!multi_port_lb && supervisor_port != kSupervisorPort)
    return invalid_argument(
        "--data-parallel-supervisor-port is for --data-parallel-multi-port-external-lb");
  if (external_lb && (hybrid_lb || headless) && !multi_port_lb)
    return invalid_argument(
        "--data-parallel-external-lb is one rank with its own API: --data-parallel-hybrid-lb and "
        "--headless say otherwise");
  for (const auto& [is_given, flag] :
       {std::pair{plan.rank.has_value(), "--data-parallel-rank"},
        std::pair{hybrid_lb, "--data-parallel-hybrid-lb"}, std::pair{headless, "--headless"}})
    if (multi_port_lb && is_given)
      return invalid_argument(
          "--data-parallel-multi-port-external-lb starts the ranks of this host, each with its "
          "API: {} says otherwise",
          flag);
  return {};
}

// One for all hosts, as vLLM has it, unless each is to have its own (by --data-parallel-hybrid-lb,
// or because it is told its first rank), or each rank is.
Status GroupFlags::choose_door(GroupPlan& plan, bool is_default_pod) const {
  const bool tells_start = start_rank >= 0 || is_default_pod;
  const bool is_one_for_all = plan.first_local == 0 && !plan.is_on_one_host() && !hybrid_lb &&
                              (plan.num_local > 1 || !tells_start);
  if (multi_port_lb) {
    plan.door = Door::kEachRank;
  } else if (plan.rank) {
    plan.door = Door::kOwnRanks;  // it starts none
  } else if (headless) {
    plan.door = Door::kElsewhere;
  } else if (is_one_for_all) {
    plan.door = Door::kAllRanks;
  } else if (plan.num_local == 1) {
    plan.rank = plan.first_local;
  }
  if (external_lb && !multi_port_lb && !plan.rank)
    return invalid_argument(
        "--data-parallel-external-lb: which rank is this? Give --data-parallel-rank; or, for all "
        "of this host, --data-parallel-multi-port-external-lb");
  const bool is_among_hosts = plan.door == Door::kAllRanks || plan.door == Door::kElsewhere;
  return is_among_hosts ? place_meeting_of_doors(plan) : Status{};
}

// Next to where the ranks meet.
Status GroupFlags::place_meeting_of_doors(GroupPlan& plan) const {
  plan.meeting_of_doors = plan.leader;
  if (plan.leader.is_unix()) {
    plan.meeting_of_doors.path += ".door";
  } else if (plan.leader.port == UINT16_MAX) {
    return invalid_argument("--data-parallel-rpc-port {}: the next one is needed too", rpc_port);
  } else {
    ++plan.meeting_of_doors.port;
  }
  return {};
}

Result<std::optional<fabric::PresharedKey>> GroupFlags::key() const {
  if (key_file.empty()) return std::nullopt;
  return read_key_file(key_file);
}

Status check_may_leave(const net::Address& meeting, bool has_key, bool insecure) {
  if (has_key || insecure || net::is_loopback(meeting)) return {};
  return invalid_argument("{} is beyond this host: give --data-parallel-key-file, or --insecure",
                          meeting.to_string());
}

}  // namespace wideep::cmd
