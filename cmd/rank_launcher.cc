#include "cmd/rank_launcher.h"

#include "base/log.h"
#include "cmd/expert_load.h"
#include "cmd/run_until_signal.h"
#include "epp/endpoint_picker.h"
#include "epp/filters.h"
#include "gateway/gateway.h"
#include "launcher/health_watch.h"
#include "launcher/host_door.h"
#include "launcher/host_link.h"
#include "launcher/run_folder.h"
#include "launcher/supervisor.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <mutex>

namespace wideep::cmd {
namespace {

using launcher::GroupState;
using launcher::GroupStatus;

// How often ranks are asked how they are: while they start, and when they serve, so that one that
// hangs by itself is found. Sleepers are hardly disturbed.
constexpr std::chrono::milliseconds kAskWhoStarts{100};
constexpr std::chrono::milliseconds kAskWhoServes{5'000};

constexpr const char* kPickerConfig = R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: data-parallel-rank-filter
- type: data-parallel-scorer
  parameters: {{maxNumSeqs: {}}}
- type: max-score-picker
  parameters: {{maxNumOfEndpoints: 3}}
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: data-parallel-rank-filter
  - pluginRef: data-parallel-scorer
  - pluginRef: max-score-picker
)";

class RankLauncher {
 public:
  explicit RankLauncher(const RankLauncherOptions& options)
      : options_(options), service_(loop_), client_(loop_, options.listen.calls()) {}

  // The loop must not outlive what lives on it, and the supervisor's thread uses both.
  ~RankLauncher() {
    watch_.reset();
    host_link_.reset();
    host_door_.reset();
    supervisor_.reset();
    gateway_.reset();
  }

  Result<int> run() {
    WD_ASSIGN_OR_RETURN(launcher::RunFolder folder,
                        launcher::RunFolder::create(launcher::run_folder_parent()));
    folder_.emplace(std::move(folder));
    WD_TRY(options_.plan.door == Door::kElsewhere ? find_door() : open_door());
    WD_TRY(add_groups());
    return run_ranks(*supervisor_, service_, [&] {
      if (gateway_ != nullptr) gateway_->drain_and_wait(options_.listen.shutdown_timeout);
    });
  }

 private:
  // The door of this host, and of the others if it is the one for all.
  Status open_door() {
    WD_ASSIGN_OR_RETURN(const net::Address address, options_.listen.address());
    WD_ASSIGN_OR_RETURN(http::ApiKeys keys, options_.listen.keys());
    WD_TRY(make_gateway(std::move(keys)));
    WD_ASSIGN_OR_RETURN(const net::Address bound, gateway_->listen(address));
    url_ = url_of(bound);
    if (options_.plan.door == Door::kOwnRanks) return {};
    WD_TRY(check_meeting_of_doors());
    const GroupPlan& plan = options_.plan;
    launcher::HostDoorOptions door{
        .listen = plan.meeting_of_doors,
        .key = launcher::door_key(options_.key),
        .num_ranks = plan.num_ranks,
        .own = {.first = plan.first_local, .count = plan.num_local},
        .socket_of = [this](int32_t rank) { return place_of(rank).address.path; },
        .on_change = [this] { loop_.post([this] { on_other_hosts(); }); },
        .connections_max = static_cast<int>(options_.listen.connections_max)};
    WD_ASSIGN_OR_RETURN(host_door_, launcher::HostDoor::create(std::move(door)));
    return {};
  }

  // The way to the first host's door, which has the ranks of this host too.
  Status find_door() {
    WD_TRY(check_meeting_of_doors());
    const GroupPlan& plan = options_.plan;
    url_ = fmt::format("the door at {}", plan.meeting_of_doors.to_string());
    host_link_ = std::make_unique<launcher::HostLink>(launcher::HostLinkOptions{
        .door = plan.meeting_of_doors,
        .key = launcher::door_key(options_.key),
        .num_ranks = plan.num_ranks,
        .ranks = {.first = plan.first_local, .count = plan.num_local},
        .socket_of = [this](int32_t rank) { return place_of(rank).address.path; },
        .connections_max = static_cast<int>(options_.listen.connections_max)});
    return {};
  }

  // The ranks' own rule.
  Status check_meeting_of_doors() const {
    return check_may_leave(options_.plan.meeting_of_doors, options_.key.has_value(),
                           options_.listen.insecure);
  }

  Status make_gateway(http::ApiKeys keys) {
    WD_ASSIGN_OR_RETURN(epp::PickerConfig config, epp::parse_picker_config(fmt::format(
                                                      kPickerConfig, options_.max_num_seqs)));
    picker_ = std::make_unique<epp::EndpointPicker>(std::move(config), real_clock());
    gateway::GatewayOptions gateway;
    gateway.limits = options_.listen.limits();
    gateway.access_log = false;
    gateway.answer_timeout = std::chrono::hours(24);  // as long as a rank would take
    gateway.endpoint_metrics = true;
    gateway.version = WIDEEP_VERSION;
    gateway.num_ranks = options_.plan.num_ranks;
    gateway.trust_kv_params = options_.moves_kv;  // the ranks judge them
    gateway.gathered.push_back({"/expert_load", "application/json",
                                [](const std::vector<gateway::EndpointAnswer>& answers) {
                                  std::vector<std::string> documents;
                                  for (const gateway::EndpointAnswer& answer : answers)
                                    documents.push_back(answer.body);
                                  return merge_expert_load(documents).dump();
                                }});
    gateway_ = std::make_unique<gateway::Gateway>(loop_, client_, *picker_, std::move(keys),
                                                  std::move(gateway));
    return {};
  }

  Status add_groups() {
    launcher::SupervisorOptions supervisor = rank_supervision(options_.listen.shutdown_timeout);
    supervisor.on_change = [this](const GroupStatus& status) { on_change(status); };
    supervisor_ = std::make_unique<launcher::Supervisor>(std::move(supervisor));
    const GroupPlan& plan = options_.plan;
    std::vector<RankPlace> places;
    for (int32_t i = 0; i < plan.num_local; ++i)
      places.push_back(place_of(plan.first_local + i));
    WD_ASSIGN_OR_RETURN(std::vector<launcher::GroupSpec> specs,
                        rank_groups(plan, places, options_.arguments));
    std::vector<launcher::Member> members = members_of(specs, places);
    auto next = places.begin();
    for (launcher::GroupSpec& spec : specs) {
      const auto end = next + static_cast<ptrdiff_t>(spec.members.size());
      groups_.push_back({spec.name, {next, end}});
      next = end;
      supervisor_->add(std::move(spec));
    }
    watch_ = std::make_unique<launcher::HealthWatch>(
        loop_, client_, *supervisor_, std::move(members),
        launcher::HealthWatchOptions{
            .interval = kAskWhoStarts,
            .interval_ready = kAskWhoServes,
            .start_timeout = 2 * options_.start_timeout,  // ranks judge themselves before that
            .collect_metrics = false,
            // A step may take its time: ranks know among themselves who does not get on.
            .any_answer_will_do = true});
    return {};
  }

  RankPlace place_of(int32_t rank) const {
    const std::string base = fmt::format("{}/rank-{}", folder_->path(), rank);
    return {.rank = rank,
            .address = net::Address::unix_socket(base),
            .meeting = own_meeting(options_.plan, folder_->path())};
  }

  // On the supervisor's thread.
  void on_change(const GroupStatus& status) {
    update_endpoints();
    if (status.state == GroupState::kStarting) watch_->look();
    if (status.state == GroupState::kReady) loop_.post([this] { announce(); });
  }

  // Tells the door, wherever it is, which ranks answer.
  void update_endpoints() {
    const std::scoped_lock lock(endpoints_mutex_);
    std::vector<bool> own(static_cast<size_t>(options_.plan.num_local));
    std::vector<epp::EndpointSpec> specs;
    for (const GroupStatus& status : supervisor_->status()) {
      if (status.state != GroupState::kReady) continue;
      for (const RankPlace& place : places_of(status.name)) {
        own[static_cast<size_t>(place.rank - options_.plan.first_local)] = true;
        specs.push_back(endpoint_at(place));
      }
    }
    if (host_link_ != nullptr) host_link_->set_ready(std::move(own));
    if (host_door_ != nullptr)
      for (const int32_t rank : host_door_->ready_ranks())
        specs.push_back(endpoint_at(place_of(rank)));
    if (picker_ != nullptr) picker_->set_endpoints(std::move(specs));
  }

  static epp::EndpointSpec endpoint_at(const RankPlace& place) {
    return {.name = fmt::format("rank-{}", place.rank),
            .address = place.address,
            .labels = {{std::string(epp::kRankLabel), std::to_string(place.rank)}}};
  }

  // On the loop: hosts, or ranks of theirs, have come or gone.
  void on_other_hosts() {
    update_endpoints();
    log_info("{} ranks of other hosts are ready behind {}", host_door_->ready_ranks().size(), url_);
  }

  // Once all groups are ready for the first time.
  void announce() {
    const bool all_ready = std::ranges::all_of(
        supervisor_->status(),
        [](const GroupStatus& status) { return status.state == GroupState::kReady; });
    if (!all_ready) return;
    log_info("serving {} with {} ranks at {}", options_.what, options_.plan.num_local, url_);
    if (std::exchange(is_announced_, true)) return;
    const Status written = write_ready_file(options_.listen.ready_file, url_);
    if (!written) log_error("{}", written.error().message);
  }

  const std::vector<RankPlace>& places_of(const std::string& name) const {
    return std::ranges::find(groups_, name, &Group::name)->places;
  }

  struct Group {
    std::string name;
    std::vector<RankPlace> places;  // of its members, in order
  };

  const RankLauncherOptions& options_;
  std::optional<launcher::RunFolder> folder_;
  net::EventLoop loop_;
  Service service_;
  http::Client client_;
  std::unique_ptr<epp::EndpointPicker> picker_;
  std::unique_ptr<gateway::Gateway> gateway_;
  std::unique_ptr<launcher::Supervisor> supervisor_;
  std::unique_ptr<launcher::HealthWatch> watch_;
  std::vector<Group> groups_;
  std::unique_ptr<launcher::HostDoor> host_door_;  // on the host of a door for all
  std::unique_ptr<launcher::HostLink> host_link_;  // on the others
  std::mutex endpoints_mutex_;  // the last to look at the endpoints is the last to tell
  std::string url_;
  bool is_announced_ = false;  // on the loop
};

}  // namespace

Result<int> serve_ranks(const RankLauncherOptions& options) {
  return RankLauncher(options).run();
}

}  // namespace wideep::cmd
