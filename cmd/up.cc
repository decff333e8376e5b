// `wideep up`: a whole deployment on this host.
#include "base/file.h"
#include "base/memory.h"
#include "base/yaml.h"
#include "cmd/listen_options.h"
#include "cmd/run_until_signal.h"
#include "cmd/up_console.h"
#include "cmd/verb.h"
#include "epp/config.h"
#include "launcher/cluster_config.h"
#include "launcher/deployment.h"
#include "launcher/health_watch.h"
#include "launcher/run_folder.h"
#include "launcher/status_view.h"
#include "launcher/supervisor.h"
#include "net/descriptors.h"
#include "net/event_loop.h"
#include "net/signals.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

namespace wideep::cmd {
namespace {

using launcher::ClusterConfig;
using launcher::Deployment;
using launcher::GroupState;
using launcher::GroupStatus;

// A deployment that runs, and everything that looks after it.
class Running {
 public:
  Running(const ClusterConfig& config, const Deployment& deployment, UpConsole& console)
      : config_(config),
        deployment_(deployment),
        console_(console),
        view_(deployment),
        supervisor_({.stop_grace = config.stop_grace,
                     .on_line = [&console](const std::string& member,
                                           const std::string& line) { console.line(member, line); },
                     .on_change = [this](const GroupStatus& status) { on_change(status); }}) {
    for (const launcher::GroupSpec& group : deployment.groups)
      supervisor_.add(group);
  }

  // Until a signal, or until a group is given up.
  Status run(std::function<Status()> on_ready) {
    on_ready_ = std::move(on_ready);
    WD_TRY(write_file(deployment_.endpoints_file, deployment_.endpoints(none())));
    net::LoopThread thread;
    http::Client client(thread.loop());
    std::unique_ptr<net::SignalWatcher> signals;
    std::unique_ptr<launcher::HealthWatch> watch;
    thread.loop().run_and_wait([&] {
      signals = std::make_unique<net::SignalWatcher>(thread.loop(),
                                                     std::vector<int>{SIGTERM, SIGINT, SIGHUP},
                                                     [this](int signal) { on_signal(signal); });
      watch = std::make_unique<launcher::HealthWatch>(thread.loop(), client, supervisor_,
                                                      deployment_.members, watch_options());
      watch_ = watch.get();
    });
    const Status done = supervisor_.run();
    thread.loop().run_and_wait([&] {
      watch_ = nullptr;
      watch.reset();
      signals.reset();
    });
    console_.set_status({});
    if (!done) show_what_failed();
    return done;
  }

 private:
  static constexpr std::chrono::seconds kSummaryInterval{10};

  static FunctionRef<bool(const launcher::RankPlan&)> none() {
    static const auto kNone = [](const launcher::RankPlan&) { return false; };
    return kNone;
  }

  launcher::HealthWatchOptions watch_options() {
    return {.unhealthy_after = config_.unhealthy_after,
            .start_timeout = config_.start_timeout,
            .on_round = [this] { on_round(); }};
  }

  void on_signal(int signal) {
    if (num_signals_++ == 0) {
      console_.say(
          fmt::format("up: signal {}: requests under way may end; once more ends at once", signal));
      supervisor_.stop();
    } else {
      supervisor_.stop_at_once();
    }
  }

  // On the supervisor's thread: an endpoint of a group that failed is taken out before anything
  // else happens.
  void on_change(const GroupStatus& status) {
    publish_endpoints();
    std::string text = fmt::format("up: {} is {}", status.name, name(status.state));
    if (status.state == GroupState::kBackingOff || status.state == GroupState::kFailed)
      text += ": " + status.last_failure;
    console_.say(text);
  }

  // On the watch's thread.
  void on_round() {
    publish_endpoints();
    const auto groups = supervisor_.status();
    const auto reports = watch_->snapshot();
    // The gateway is the last member. It must also have seen what was published for it.
    if (!is_announced_ && is_serving(groups) && deployment_.is_complete(reports.back().health))
      announce();
    if (console_.is_terminal()) {
      std::vector<std::string> block = {
          fmt::format("== {} at {} ==", config_.model, url_of(deployment_.gateway))};
      for (std::string& line : view_.lines(groups, reports))
        block.push_back(std::move(line));
      console_.set_status(std::move(block));
    } else if (const TimePoint now = real_clock().now(); now - last_summary_ > kSummaryInterval) {
      last_summary_ = now;
      console_.say("up: " + view_.summary(groups, reports));
    }
  }

  static bool is_serving(const std::vector<GroupStatus>& groups) {
    return std::ranges::all_of(
        groups, [](const GroupStatus& group) { return group.state == GroupState::kReady; });
  }

  void announce() {
    is_announced_ = true;
    if (const Status told = on_ready_(); !told) {
      console_.say("up: " + told.error().message);
      supervisor_.stop();
    }
  }

  // A rank can be called when all of its group and its sidecar are ready.
  void publish_endpoints() {
    const std::scoped_lock lock(publish_mutex_);
    const auto groups = supervisor_.status();
    const auto is_ready = [&](size_t member) {
      const auto group =
          std::ranges::find(groups, deployment_.members[member].group, &GroupStatus::name);
      return group != groups.end() && group->state == GroupState::kReady;
    };
    std::string text = deployment_.endpoints([&](const launcher::RankPlan& rank) {
      return is_ready(rank.member) && (!rank.sidecar || is_ready(*rank.sidecar));
    });
    if (text == published_) return;
    if (const Status written = write_file(deployment_.endpoints_file, text); !written) {
      console_.say("up: " + written.error().message);
      return;
    }
    published_ = std::move(text);
  }

  void show_what_failed() {
    for (const GroupStatus& group : supervisor_.status()) {
      const size_t colon = group.last_failure.find(':');
      if (colon == std::string::npos) continue;
      const std::string member = group.last_failure.substr(0, colon);
      const auto lines = console_.tail(member);
      console_.say(fmt::format("up: {}; its last lines:", group.last_failure));
      for (const std::string& line : lines)
        console_.say("  " + line);
    }
  }

  const ClusterConfig& config_;
  const Deployment& deployment_;
  UpConsole& console_;
  launcher::StatusView view_;
  launcher::Supervisor supervisor_;
  launcher::HealthWatch* watch_ = nullptr;
  std::function<Status()> on_ready_;
  std::mutex publish_mutex_;
  std::string published_;  // guarded by publish_mutex_
  TimePoint last_summary_ = real_clock().now();
  int num_signals_ = 0;
  bool is_announced_ = false;
};

class Up final : public Verb {
 public:
  Up()
      : Verb("up",
             "A whole deployment on this host: gateway, picker, sidecars, prefill and decode "
             "groups.") {
    options.add_positional("FILE", &file_, "What to run, in YAML; see --print-config.", false);
    options.add("--model", &model_,
                {.group = "Deployment",
                 .help = "Folder of the model to serve when there is no FILE; the demo model.",
                 .value_name = "DIR"});
    options.add("--disaggregate", &disaggregate_,
                {.group = "Deployment",
                 .help = "Which prompts are computed by prefill ranks when there is no FILE.",
                 .choices = {"long-prompts", "always"}});
    options.add("--print-config", &print_config_,
                {.group = "Deployment", .help = "Print the whole configuration, and run nothing."});
    options.add("--host", &host_, {.group = "Gateway", .help = "Address to listen on."});
    options.add(
        "--port", &port_,
        {.group = "Gateway", .help = "Port to listen on; 0: one that is free.", .max = UINT16_MAX});
    options.add("--api-key", &api_keys_,
                {.group = "Gateway",
                 .help = "Key that clients must send. Repeat it for several; better in a file or "
                         "the environment than on a command line."});
    options.add("--api-key-file", &api_key_file_,
                {.group = "Gateway",
                 .help = "Keys of clients, one 'name key' a line, readable by the owner only.",
                 .value_name = "FILE"});
    options.add("--ready-file", &ready_file_,
                {.group = "Deployment",
                 .help = "Write the gateway's URL here once everything is ready.",
                 .value_name = "FILE"});
    options.add("--run-dir", &run_dir_,
                {.group = "Deployment",
                 .help = "Where the folder of this run is made: keys, logs, generated files. It "
                         "goes at the end.",
                 .value_name = "DIR"});
    options.add("--log-dir", &log_dir_,
                {.group = "Deployment",
                 .help = "Keep the logs of the processes here, not in the folder of the run.",
                 .value_name = "DIR"});
    options.add("--show-logs", &show_logs_,
                {.group = "Deployment", .help = "Also show the lines of the processes here."});
  }

  int run() override {
    const Status done = up();
    return done ? kExitOk : fail(done.error(), status_);
  }

 private:
  Status up() {
    status_ = kExitUsage;
    WD_ASSIGN_OR_RETURN(const ClusterConfig config, configuration());
    if (print_config_) {
      fmt::print("{}", launcher::to_yaml(config));
      return {};
    }
    WD_TRY(check_picker(config));
    status_ = kExitFailed;
    WD_ASSIGN_OR_RETURN(const launcher::RunFolder folder,
                        launcher::RunFolder::create(run_parent()));
    net::HeldPorts ports;
    WD_ASSIGN_OR_RETURN(const launcher::DeploymentPlace place, make_place(folder));
    WD_ASSIGN_OR_RETURN(const Deployment deployment,
                        launcher::plan_deployment(config, place, ports));
    status_ = kExitUsage;
    WD_TRY(check_commands(deployment));
    status_ = kExitFailed;
    net::raise_descriptor_limit();
    std::signal(SIGPIPE, SIG_IGN);  // a terminal that has gone must not end the deployment
    WD_ASSIGN_OR_RETURN(const std::string logs, make_log_folder(folder));
    UpConsole console(logs, show_logs_);
    console.say(fmt::format("up: {} with {}", config.model, shape_text(config)));
    Running running(config, deployment, console);
    return running.run([&]() -> Status {
      const std::string url = url_of(deployment.gateway);
      console.say("up: ready at " + url);
      return write_ready_file(ready_file_, url);
    });
  }

  Result<ClusterConfig> configuration() {
    ClusterConfig config;
    if (!file_.empty()) {
      if (!model_.empty()) return invalid_argument("--model: the model stands in {}", file_);
      WD_ASSIGN_OR_RETURN(const std::string text, read_file(file_, kYamlBytesMax));
      auto read = launcher::parse_cluster_config(text);
      if (!read) return with_context(read.error(), file_);
      config = std::move(*read);
    } else {
      WD_ASSIGN_OR_RETURN(const std::string model, model_folder());
      config = launcher::default_cluster(
          model, bytes_of(model),
          {.num_cores = num_cores(),
           .memory_bytes = static_cast<int64_t>(available_memory_bytes())});
      config.gateway_port = kDefaultPort;
      if (disaggregate_ == "always") config.disaggregate = launcher::Disaggregate::kAlways;
    }
    if (options.was_set("--host")) config.gateway_host = host_;
    if (options.was_set("--port")) config.gateway_port = port_;
    if (config.gateway_port < 0 || config.gateway_port > 65535)
      return invalid_argument("--port {}: 0 to 65535 is expected", config.gateway_port);
    if (!api_key_file_.empty()) config.gateway_flags.set("api-key-file", api_key_file_);
    WD_TRY(check_door(config));
    return config;
  }

  // The gateway would say the same, once it runs.
  Status check_door(const ClusterConfig& config) const {
    const net::Address address{.host = config.gateway_host, .port = 0, .path = {}};
    const bool is_guarded =
        !api_keys_.empty() ||
        std::ranges::any_of(std::array{"api-key", "api-key-file", "insecure"},
                            [&](const char* f) { return config.gateway_flags.find(f) != nullptr; });
    if (net::is_loopback(address) || is_guarded) return {};
    return invalid_argument(
        "{} can be reached from outside: give --api-key-file, or the gateway's flag insecure to "
        "let everybody in",
        config.gateway_host);
  }

  // --model, or the demo model: here, or in the source tree that the program was built in.
  Result<std::string> model_folder() const {
    if (!model_.empty()) return model_;
    WD_ASSIGN_OR_RETURN(const std::filesystem::path program, program_path());
    for (const auto& folder :
         {std::filesystem::path("models/demo"), program.parent_path() / "../../models/demo"}) {
      if (std::filesystem::exists(folder / "config.json"))
        return folder.lexically_normal().string();
    }
    return invalid_argument("give a FILE or --model: there is no demo model here");
  }

  static int64_t bytes_of(const std::string& model) {
    std::error_code code;
    int64_t sum = 0;
    for (const auto& entry : std::filesystem::directory_iterator(model, code)) {
      if (entry.path().extension() == ".safetensors")
        sum += static_cast<int64_t>(entry.file_size(code));
    }
    return sum;
  }

  static int64_t num_cores() { return std::max<int64_t>(1, std::thread::hardware_concurrency()); }

  std::string run_parent() const {
    return run_dir_.empty() ? launcher::run_folder_parent() : run_dir_;
  }

  Result<launcher::DeploymentPlace> make_place(const launcher::RunFolder& folder) const {
    launcher::DeploymentPlace place;
    WD_ASSIGN_OR_RETURN(place.program, program_path());
    place.folder = folder.path();
    place.num_cores = num_cores();
    place.hopeless_codes = {kExitUsage, kExitBadModel};
    WD_ASSIGN_OR_RETURN(place.group_key_file, folder.make_key("group.key"));
    WD_ASSIGN_OR_RETURN(place.kv_key_file, folder.make_key("kv.key"));
    if (!api_keys_.empty()) {
      // In a file, so that they do not stand in the list of processes.
      WD_ASSIGN_OR_RETURN(const http::ApiKeys keys, http::ApiKeys::load(api_keys_, ""));
      WD_ASSIGN_OR_RETURN(place.client_key_file,
                          folder.make_secret("clients.keys", keys.file_text()));
    }
    return place;
  }

  Result<std::string> make_log_folder(const launcher::RunFolder& folder) const {
    std::string path = log_dir_.empty() ? folder.path() + "/logs" : log_dir_;
    std::error_code code;
    std::filesystem::create_directories(path, code);
    if (code) return error(ErrorCode::kUnavailable, "{}: {}", path, code.message());
    return path;
  }

  // Mistakes in the picker's configuration and in flags are found before anything starts.
  static Status check_picker(const ClusterConfig& config) {
    std::string text = launcher::picker_config(config);
    std::string source = "picker.config";
    if (!config.picker_config_file.empty()) {
      WD_ASSIGN_OR_RETURN(text, read_file(config.picker_config_file, kYamlBytesMax));
      source = config.picker_config_file;
    }
    const auto parsed = epp::parse_picker_config(text);
    return parsed ? Status{} : with_context(parsed.error(), source);
  }

  static Status check_commands(const Deployment& deployment) {
    for (const launcher::GroupSpec& group : deployment.groups) {
      for (const launcher::ProcessSpec& member : group.members) {
        const std::string& verb_name = member.command[1];
        const auto verb = verb_name == "serve"     ? make_serve()
                          : verb_name == "sidecar" ? make_sidecar()
                                                   : make_gateway();
        std::string help;
        const auto parsed = verb->options.parse(std::span(member.command).subspan(2), &help);
        if (!parsed) return with_context(parsed.error(), member.name);
      }
    }
    return {};
  }

  static std::string shape_text(const ClusterConfig& config) {
    std::string text;
    for (const launcher::GroupConfig& group : config.groups) {
      text += fmt::format("{}{} ({} rank{})", text.empty() ? "" : ", ", group.name, group.ranks,
                          group.ranks > 1 ? "s" : "");
    }
    return text;
  }

  static constexpr int64_t kDefaultPort = 8080;

  std::string file_;
  std::string model_;
  std::string disaggregate_ = "long-prompts";
  std::string host_ = "127.0.0.1";
  int64_t port_ = kDefaultPort;
  std::vector<std::string> api_keys_;
  std::string api_key_file_;
  std::string ready_file_;
  std::string run_dir_;
  std::string log_dir_;
  bool show_logs_ = true;
  bool print_config_ = false;
  int status_ = kExitFailed;
};

}  // namespace

std::unique_ptr<Verb> make_up() {
  return std::make_unique<Up>();
}

}  // namespace wideep::cmd
