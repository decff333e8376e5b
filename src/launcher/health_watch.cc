#include "launcher/health_watch.h"

#include "base/log.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <utility>

namespace wideep::launcher {
class HealthWatch::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(net::EventLoop& loop,
       http::Client& client,
       Supervisor& supervisor,
       std::vector<Member> members,
       HealthWatchOptions options,
       const Clock& clock)
      : loop_(loop),
        client_(client),
        supervisor_(supervisor),
        members_(std::move(members)),
        options_(std::move(options)),
        clock_(clock),
        reports_(members_.size()),
        watched_(members_.size()) {}

  void tick() {
    if (stopped_) return;
    if (options_.on_round) options_.on_round();
    forgive_own_absence();
    const std::vector<GroupStatus> groups = supervisor_.status();
    for (size_t i = 0; i < members_.size(); ++i) {
      const auto group = std::ranges::find(groups, members_[i].group, &GroupStatus::name);
      if (group != groups.end()) look_at(i, *group);
    }
    const bool all_ready = std::ranges::all_of(
        groups, [](const GroupStatus& group) { return group.state == GroupState::kReady; });
    loop_.post_after(all_ready ? options_.interval_ready : options_.interval,
                     [self = shared_from_this(), turn = ++turn_] {
                       if (turn == self->turn_) self->tick();
                     });
  }

  // In place of the round that is due.
  void look() {
    loop_.post([self = shared_from_this()] { self->tick(); });
  }

  void stop() { stopped_ = true; }

  std::vector<MemberReport> snapshot() const {
    const std::scoped_lock lock(mutex_);
    return reports_;
  }

 private:
  TimePoint now() const { return clock_.now(); }

  // What is known of a member besides its report.
  struct Watched {
    bool asking_health = false;
    bool asking_metrics = false;
    int64_t incarnation = 0;  // that the times below belong to
    TimePoint started{};      // first seen in this incarnation
    TimePoint healthy_last{};
  };

  struct Answer {
    int status = 0;
    std::string body;
  };

  // While this process was stopped it was the one that did not ask.
  void forgive_own_absence() {
    const Duration absence = now() - std::exchange(last_tick_, now());
    if (absence < options_.unhealthy_after / 2) return;
    for (Watched& watched : watched_) {
      watched.started += absence;
      watched.healthy_last += absence;
    }
  }

  void look_at(size_t i, const GroupStatus& group) {
    Watched& watched = watched_[i];
    if (watched.incarnation != group.incarnation) {
      watched.incarnation = group.incarnation;
      watched.started = watched.healthy_last = now();
      set_healthy(i, false);
    }
    if (group.state != GroupState::kStarting && group.state != GroupState::kReady) {
      set_healthy(i, false);
      return;
    }
    judge(i, group);
    if (!watched.asking_health) ask_health(i);
    if (options_.collect_metrics && members_[i].kind == Member::Kind::kRank &&
        !watched.asking_metrics)
      ask_metrics(i);
  }

  void judge(size_t i, const GroupStatus& group) {
    const Watched& watched = watched_[i];
    const bool is_slow_start =
        group.state == GroupState::kStarting && now() - watched.started > options_.start_timeout;
    const bool is_stuck = group.state == GroupState::kReady &&
                          now() - watched.healthy_last > options_.unhealthy_after;
    if (!is_slow_start && !is_stuck) return;
    const auto limit = std::chrono::duration_cast<std::chrono::seconds>(
        is_stuck ? options_.unhealthy_after : options_.start_timeout);
    supervisor_.report_failed(
        group.name, group.incarnation, members_[i].index,
        fmt::format("{} for {} s", is_stuck ? "unhealthy" : "not ready", limit.count()));
  }

  void ask_health(size_t i) {
    watched_[i].asking_health = true;
    ask(i, "/health", [this, i, incarnation = watched_[i].incarnation](const Answer* answer) {
      watched_[i].asking_health = false;
      // A gateway without endpoints says 503, and yet it serves.
      const bool is_healthy =
          answer != nullptr && (answer->status == 200 || options_.any_answer_will_do ||
                                members_[i].kind == Member::Kind::kGateway);
      if (watched_[i].incarnation != incarnation) return;
      if (is_healthy) {
        watched_[i].healthy_last = now();
        supervisor_.report_ready(members_[i].group, incarnation, members_[i].index);
      }
      set_healthy(i, is_healthy);
      const std::scoped_lock lock(mutex_);
      reports_[i].health = answer != nullptr ? answer->body : "";
    });
  }

  void ask_metrics(size_t i) {
    watched_[i].asking_metrics = true;
    ask(i, "/metrics", [this, i](const Answer* answer) {
      watched_[i].asking_metrics = false;
      if (answer == nullptr || answer->status != 200) return;
      const std::scoped_lock lock(mutex_);
      reports_[i].metrics = answer->body;
      reports_[i].metrics_time = now();
    });
  }

  // `done` gets nullptr if no answer came. It is not called once this has been stopped.
  void ask(size_t i, const char* path, std::function<void(const Answer*)> done) {
    http::Call call;
    call.address = members_[i].address;
    call.target = path;
    call.connect_timeout = options_.timeout;
    call.head_timeout = options_.timeout;
    call.idle_timeout = options_.timeout;
    call.total_timeout = options_.timeout;
    auto answer = std::make_shared<Answer>();  // shared by the callbacks of one call
    const auto limit = static_cast<size_t>(options_.body_bytes_max);
    client_.start(
        std::move(call),
        {.on_head = [answer](const http::ResponseHead& head) { answer->status = head.status; },
         .on_body =
             [answer, limit](std::string_view bytes) {
               if (answer->body.size() + bytes.size() <= limit) answer->body += bytes;
             },
         .on_done =
             [self = shared_from_this(), answer,
              done = std::move(done)](const http::CallResult& result) {
               if (!self->stopped_) done(result ? answer.get() : nullptr);
             }});
  }

  void set_healthy(size_t i, bool healthy) {
    const std::scoped_lock lock(mutex_);
    if (reports_[i].healthy == healthy) return;
    reports_[i].healthy = healthy;
    reports_[i].changed = now();
  }

  net::EventLoop& loop_;
  http::Client& client_;
  Supervisor& supervisor_;
  const std::vector<Member> members_;
  const HealthWatchOptions options_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  std::vector<MemberReport> reports_;  // guarded by mutex_
  std::vector<Watched> watched_;
  TimePoint last_tick_ = now();
  int64_t turn_ = 0;  // of the timer that counts
  bool stopped_ = false;
};

HealthWatch::HealthWatch(net::EventLoop& loop,
                         http::Client& client,
                         Supervisor& supervisor,
                         std::vector<Member> members,
                         HealthWatchOptions options,
                         const Clock& clock)
    : core_(std::make_shared<Core>(
          loop, client, supervisor, std::move(members), std::move(options), clock)) {
  core_->look();
}

HealthWatch::~HealthWatch() {
  core_->stop();
}

void HealthWatch::look() {
  core_->look();
}

std::vector<MemberReport> HealthWatch::snapshot() const {
  return core_->snapshot();
}

}  // namespace wideep::launcher
