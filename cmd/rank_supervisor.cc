#include "cmd/rank_supervisor.h"

#include "base/json.h"
#include "base/log.h"
#include "cmd/run_until_signal.h"
#include "http/client.h"
#include "http/server.h"
#include "launcher/health_watch.h"
#include "launcher/run_folder.h"
#include "net/held_ports.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace wideep::cmd {
namespace {

using launcher::GroupState;
using launcher::GroupStatus;

class RankSupervisor {
 public:
  explicit RankSupervisor(const RankSupervisorOptions& options)
      : options_(options), service_(loop_), client_(loop_), server_(loop_, {}) {}

  Result<int> run() {
    WD_ASSIGN_OR_RETURN(launcher::RunFolder folder,
                        launcher::RunFolder::create(launcher::run_folder_parent()));
    folder_.emplace(std::move(folder));
    WD_TRY(place_ranks());
    WD_TRY(listen());
    WD_TRY(add_groups());
    const int status = run_ranks(*supervisor_, service_, [] {});
    watch_.reset();
    return status;
  }

 private:
  Status place_ranks() {
    WD_TRY(options_.listen.address());
    WD_ASSIGN_OR_RETURN(const http::ApiKeys keys, options_.listen.keys());
    std::string key_file;
    if (!keys.empty()) {
      // Not on a command line, which others can read.
      WD_ASSIGN_OR_RETURN(key_file, folder_->make_secret("clients.keys", keys.file_text()));
    }
    const GroupPlan& plan = options_.plan;
    for (int32_t i = 0; i < plan.num_local; ++i) {
      const int64_t port = options_.listen.port > 0 ? options_.listen.port + i : 0;
      RankPlace place{.rank = plan.first_local + i,
                      .api_key_file = key_file,
                      .meeting = own_meeting(plan, folder_->path())};
      WD_ASSIGN_OR_RETURN(place.address,
                          ports_.hold(options_.listen.host, static_cast<uint16_t>(port)));
      places_.push_back(std::move(place));
    }
    return {};
  }

  Status add_groups() {
    launcher::SupervisorOptions supervisor = rank_supervision(options_.listen.shutdown_timeout);
    supervisor.on_change = [this](const GroupStatus& status) {
      if (status.state == GroupState::kReady) loop_.post([this] { announce(); });
    };
    supervisor_ = std::make_unique<launcher::Supervisor>(std::move(supervisor));
    WD_ASSIGN_OR_RETURN(std::vector<launcher::GroupSpec> specs,
                        rank_groups(options_.plan, places_, options_.arguments));
    std::vector<launcher::Member> members = members_of(specs, places_);
    for (launcher::GroupSpec& spec : specs) {
      // The ranks of other hosts have ended too, and they do not wait for these.
      if (options_.plan.is_group()) spec.restart.restarts_max = 0;
      supervisor_->add(std::move(spec));
    }
    watch_ = std::make_unique<launcher::HealthWatch>(
        loop_, client_, *supervisor_, std::move(members),
        launcher::HealthWatchOptions{
            .start_timeout = 2 * options_.start_timeout,  // ranks judge themselves before that
            .collect_metrics = false});
    return {};
  }

  Status listen() {
    for (const char* path : {"/health", "/ready", "/readyz"})
      server_.route("GET", path, [this](const http::Request&, http::Responder responder) {
        responder.send(health());
      });
    const net::Address address{
        .host = options_.listen.host, .port = static_cast<uint16_t>(options_.port), .path = {}};
    WD_ASSIGN_OR_RETURN(const net::Address bound, server_.listen(address));
    log_info("starting ranks {} to {}; {}/health tells whether all of them serve",
             places_.front().rank, places_.back().rank, url_of(bound));
    return {};
  }

  http::Response health() const {
    const auto reports = watch_->snapshot();
    Json ranks{Json::Array{}};
    for (size_t i = 0; i < places_.size(); ++i) {
      Json rank;
      rank.set("rank", places_[i].rank);
      rank.set("address", places_[i].address.to_string());
      rank.set("healthy", reports[i].healthy);
      ranks.append(std::move(rank));
    }
    const bool is_well =
        all_ready() && std::ranges::all_of(reports, &launcher::MemberReport::healthy);
    Json body;
    body.set("status", is_well ? "ok" : "not ready");
    body.set("ranks", std::move(ranks));
    return {.status = is_well ? 200 : 503,
            .headers = {{"content-type", "application/json"}},
            .body = body.dump()};
  }

  bool all_ready() const {
    return std::ranges::all_of(supervisor_->status(), [](const GroupStatus& status) {
      return status.state == GroupState::kReady;
    });
  }

  // Once all ranks are ready for the first time, on the loop.
  void announce() {
    if (!all_ready() || std::exchange(is_announced_, true)) return;
    std::string urls;
    for (const RankPlace& place : places_) {
      const std::string url = url_of(place.address);
      log_info("serving {} with rank {} at {}", options_.what, place.rank, url);
      urls += (urls.empty() ? "" : "\n") + url;
    }
    const Status written = write_ready_file(options_.listen.ready_file, urls);
    if (!written) log_error("{}", written.error().message);
  }

  const RankSupervisorOptions& options_;
  std::optional<launcher::RunFolder> folder_;
  net::HeldPorts ports_;
  std::vector<RankPlace> places_;
  net::EventLoop loop_;
  Service service_;
  http::Client client_;
  std::unique_ptr<launcher::Supervisor> supervisor_;
  std::unique_ptr<launcher::HealthWatch> watch_;
  http::Server server_;
  bool is_announced_ = false;  // on the loop
};

}  // namespace

Status check_ports(const RankSupervisorOptions& options) {
  const int64_t first = options.listen.port;
  const int64_t last = first + options.plan.num_local - 1;
  if (!options.listen.uds.empty())
    return invalid_argument("--uds: each of several ranks needs a port");
  if (first < 0 || (first > 0 && last > UINT16_MAX))
    return invalid_argument("--port {}: {} ranks would have ports up to {}", first,
                            options.plan.num_local, last);
  if (options.port < 0 || options.port > UINT16_MAX)
    return invalid_argument("--data-parallel-supervisor-port {}: 0 to {} is expected", options.port,
                            UINT16_MAX);
  if (first > 0 && options.port >= first && options.port <= last)
    return invalid_argument(
        "--data-parallel-supervisor-port {} is that of rank {}: {} to {} are "
        "taken",
        options.port, options.plan.first_local + options.port - first, first, last);
  return {};
}

Result<int> supervise_ranks(const RankSupervisorOptions& options) {
  return RankSupervisor(options).run();
}

}  // namespace wideep::cmd
