// `wideep serve MODEL`: an engine with the OpenAI API.
#include "base/log.h"
#include "cmd/foreign_flags.h"
#include "cmd/group_flags.h"
#include "cmd/kv_options.h"
#include "cmd/listen_options.h"
#include "cmd/rank_launcher.h"
#include "cmd/rank_server.h"
#include "cmd/rank_supervisor.h"
#include "cmd/run_until_signal.h"
#include "cmd/verb.h"
#include "engine/engine.h"
#include "model/config.h"
#include "net/held_ports.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace wideep::cmd {
namespace {

class Serve final : public Verb {
 public:
  Serve() : Verb("serve", "Serve a model over the OpenAI API.") {
    constexpr int64_t kDefaultPort = 8000;
    rank_.engine.declare(options);
    group_.declare(options);
    listen_.declare(options, kDefaultPort);
    kv_.declare(options);
    options.add("--served-model-name", &rank_.api.served_model_names,
                {.group = "API",
                 .help = "Names that requests may ask for; the first is the one in answers."});
    options.add("--chat-template", &rank_.chat_template_file,
                {.group = "API",
                 .help = "Jinja template to use instead of the model's.",
                 .value_name = "FILE"});
    options.add("--split-reasoning", &rank_.api.split_reasoning,
                {.group = "API", .help = "Answer <think>…</think> as reasoning_content."});
    options.add("--metrics-port", &metrics_port_,
                {.group = "Server",
                 .help = "A port of its own for /metrics and health, without keys; 0: none.",
                 .max = UINT16_MAX});
    options.add("--generation-config", &generation_config_,
                {.group = "API",
                 .help = "Where sampling defaults come from: auto is generation_config.json.",
                 .choices = {"auto", "vllm"}});
    declare_foreign_flags(options);
  }

  int run() override {
    const auto lws = LwsEnvironment::read();
    if (!lws) return fail(lws.error(), kExitUsage);
    const Result<GroupPlan> plan = group_.resolve(*lws);
    if (!plan) return fail(plan.error(), kExitUsage);
    auto kv = kv_.resolve(plan->rank.value_or(0), listen_.insecure);
    if (!kv) return fail(kv.error(), kExitUsage);
    rank_.kv = *std::move(kv);
    if (const Status flags = check_before_start(*plan); !flags)
      return fail(flags.error(), kExitUsage);
    if (!plan->rank) return serve_group(*plan);
    const Status done = serve(*plan);
    return done ? kExitOk : fail(done.error(), status_);
  }

 private:
  int serve_group(const GroupPlan& plan) {
    if (metrics_port_ > 0)
      return fail({ErrorCode::kInvalidArgument,
                   "--metrics-port is for one rank; several have /metrics where their API is"},
                  kExitUsage);
    const auto arguments = [&](const RankPlace& place) { return arguments_of(plan, place); };
    if (plan.door == Door::kEachRank) {
      const RankSupervisorOptions supervise{.plan = plan,
                                            .listen = listen_,
                                            .port = group_.supervisor_port,
                                            .what = rank_.engine.model_path,
                                            .start_timeout = group_.start_timeout,
                                            .arguments = arguments};
      if (const Status ports = check_ports(supervise); !ports)
        return fail(ports.error(), kExitUsage);
      if (const Status model = check_model(); !model) return fail(model.error(), status_);
      const Result<int> status = supervise_ranks(supervise);
      return status ? *status : fail(status.error());
    }
    auto key = group_.key();
    if (!key) return fail(key.error(), kExitUsage);
    if (const Status model = check_model(); !model) return fail(model.error(), status_);
    const RankLauncherOptions launch{.plan = plan,
                                     .key = *std::move(key),
                                     .listen = listen_,
                                     .what = rank_.engine.model_path,
                                     .max_num_seqs = rank_.engine.engine.max_num_seqs,
                                     .start_timeout = group_.start_timeout,
                                     .moves_kv = rank_.kv.has_value(),
                                     .arguments = arguments};
    const Result<int> status = serve_ranks(launch);
    return status ? *status : fail(status.error());
  }

  // This command line as that rank's: the door's flags stay here.
  std::vector<std::string> arguments_of(const GroupPlan& plan, const RankPlace& place) {
    const auto own = std::tuple(listen_, group_, metrics_port_);
    listen_.uds = place.address.path;
    listen_.port = place.address.port;
    listen_.ready_file.clear();
    listen_.api_keys.clear();
    listen_.api_key_file = place.api_key_file;
    metrics_port_ = 0;
    group_.size = plan.num_ranks;
    group_.size_local = plan.num_local;
    group_.start_rank = plan.first_local;
    group_.rank = place.rank;
    group_.headless = false;
    group_.hybrid_lb = false;
    group_.external_lb = false;
    group_.multi_port_lb = false;
    group_.supervisor_port = GroupFlags::kSupervisorPort;
    group_.address = plan.leader.is_unix() ? plan.leader.to_string() : plan.leader.host;
    if (!place.meeting.empty()) group_.address = place.meeting;
    std::vector<std::string> arguments = options.arguments();
    arguments.insert(arguments.begin(), options.command());
    std::tie(listen_, group_, metrics_port_) = own;
    return arguments;
  }

  // What can be known to be wrong before minutes are spent on loading.
  Status check_before_start(const GroupPlan& plan) {
    if (plan.door != Door::kElsewhere) {
      WD_TRY(listen_.address());
      WD_TRY(listen_.keys());
    }
    WD_TRY(group_.key());
    return check_flags(rank_.engine);
  }

  // Whether the model can be served with these flags; status_ tells whose fault it is.
  Status check_model() {
    status_ = kExitBadModel;
    WD_ASSIGN_OR_RETURN(const model::ModelConfig config,
                        model::load_config(rank_.engine.model_path));
    status_ = kExitUsage;
    WD_TRY(engine::check_options(rank_.engine.engine, config));
    status_ = kExitFailed;
    return {};
  }

  // What this process is in the plan.
  Status become_rank(const GroupPlan& plan) {
    rank_.api.engine_label = std::to_string(*plan.rank);
    rank_.engine.rank.number = *plan.rank;
    rank_.engine.rank.local_index = *plan.rank - plan.first_local;
    rank_.engine.rank.num_local = plan.num_local;
    if (!plan.is_group()) return {};
    rank_.engine.rank.placement = plan.placement;
    fabric::JoinOptions join{.rank = RankId{*plan.rank},
                             .num_ranks = plan.num_ranks,
                             .leader = plan.leader,
                             .host = group_.host,
                             .insecure = listen_.insecure,
                             .timeout = group_.start_timeout};
    if (group_.transport == "ucx") {
      join.transport = fabric::NodeTransport::kUcx;
      // UCX's own variables: which transports and devices it may take.
      join.ucx = {.transports = environment_variable("UCX_TLS").value_or(""),
                  .devices = environment_variable("UCX_NET_DEVICES").value_or("")};
    }
    if (group_.node_id >= 0) join.node_id = static_cast<int32_t>(group_.node_id);
    WD_ASSIGN_OR_RETURN(join.key, group_.key());
    for (const net::Address& address : {plan.leader, net::Address{.host = group_.host}})
      if (!address.host.empty())
        WD_TRY(check_may_leave(address, join.key.has_value(), listen_.insecure));
    rank_.engine.rank.join = std::move(join);
    return {};
  }

  Status serve(const GroupPlan& plan) {
    status_ = kExitUsage;
    WD_TRY(become_rank(plan));
    WD_TRY(check_model());
    WD_ASSIGN_OR_RETURN(const net::Address address, listen_.address());
    WD_ASSIGN_OR_RETURN(rank_.api.keys, listen_.keys());
    rank_.api.http_limits = listen_.limits();
    rank_.api.version = WIDEEP_VERSION;
    rank_.use_generation_config = generation_config_ == "auto";
    status_ = kExitFailed;
    net::HeldPorts held;  // from before the loading on: nobody else takes it in the meantime
    net::Address own = address;
    if (!address.is_unix()) {
      WD_ASSIGN_OR_RETURN(own, held.hold(address.host, address.port));
    }
    net::EventLoop loop;
    Service service(loop);
    const auto rank =
        RankServer::create(loop, rank_, [&](const Error& /*reason*/) { service.stop(); });
    if (!rank) {
      status_ = start_status_of(rank.error());
      return std::unexpected(rank.error());
    }
    WD_TRY(listen(**rank, own));
    engine::EngineLoop& engine = (*rank)->host().loop();
    service.run([&] {
      // After a failure nothing runs any more: only answers are on their way.
      constexpr std::chrono::seconds kLastAnswers{2};
      (*rank)->api().drain_and_wait(engine.failure() ? kLastAnswers : listen_.shutdown_timeout);
      // All ranks of a group are told to end, if not at the same moment.
      constexpr std::chrono::seconds kCompany{3};
      const Status idle = (*rank)->host().await_end(std::min(kCompany, listen_.shutdown_timeout),
                                                    listen_.shutdown_timeout);
      if (!idle) log_warning("leaving though {}", idle.error().message);
    });
    const std::optional<Error> failure = engine.failure();
    if (!failure) return {};
    if (has_ended(*failure)) status_ = kExitGroupEnded;
    return with_context(*failure, "the engine has stopped");
  }

  // What is wrong with a file will be wrong again; that a port is taken or memory short may pass.
  static int start_status_of(const Error& error) {
    if (has_ended(error)) return kExitGroupEnded;
    const bool is_for_good = error.code == ErrorCode::kInvalidArgument ||
                             error.code == ErrorCode::kNotFound ||
                             error.code == ErrorCode::kDataLoss;
    return is_for_good ? kExitBadModel : kExitFailed;
  }

  // The group is no more, through no fault of this rank.
  static bool has_ended(const Error& error) {
    return error.code == ErrorCode::kPeerLost || error.code == ErrorCode::kTimeout;
  }

  Status listen(RankServer& rank, const net::Address& address) {
    WD_ASSIGN_OR_RETURN(const net::Address bound, rank.api().listen(address));
    if (metrics_port_ > 0) {
      WD_TRY(rank.api().listen_metrics(
          {.host = listen_.host, .port = static_cast<uint16_t>(metrics_port_), .path = {}}));
    }
    const std::string url = url_of(bound);
    log_info("serving {} at {}", rank_.engine.model_path, url);
    return write_ready_file(listen_.ready_file, url);
  }

  RankServerOptions rank_;
  GroupFlags group_;
  ListenFlags listen_;
  KvFlags kv_;
  int64_t metrics_port_ = 0;
  int status_ = kExitFailed;  // what a failure at the present stage exits with
  std::string generation_config_ = "auto";
};

}  // namespace

std::unique_ptr<Verb> make_serve() {
  return std::make_unique<Serve>();
}

}  // namespace wideep::cmd
