#include "fabric/meeting.h"

#include "base/log.h"
#include "base/random.h"
#include "fabric/group_fabric.h"
#include "fabric/meeting_state.h"
#include "fabric/reception.h"
#include "fabric/talk.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace wideep::fabric {
namespace {

constexpr std::string_view kLinked = "linked";  // said by a rank of itself, by the leader of all
constexpr std::chrono::seconds kPatience{10};   // then say who is awaited
constexpr std::chrono::seconds kNewsPatience{1};
constexpr std::chrono::seconds kLeaderFirst{5};  // who is late is its to say: it knows by name

int64_t milliseconds_of(Duration time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
}

// When to give signs of life, and when silence may be held against others.
class Pulse {
 public:
  explicit Pulse(Duration liveness) : liveness_(liveness) { rounds_at_ = next_ = now(); }

  TimePoint next() const { return next_; }

  // Once a round. True: it is time for a sign.
  bool beats() {
    // After a stop of its own this rank is the one that was silent: it listens before it judges.
    may_judge_ = now() - rounds_at_ < liveness_ / 2;
    rounds_at_ = now();
    if (now() < next_) return false;
    next_ = now() + liveness_ / kBeatsPerDeadline;
    return true;
  }

  // Why whoever has been silent for so long is lost, if it is.
  std::optional<std::string> verdict(Duration silence) const {
    if (!may_judge_ || silence <= liveness_) return std::nullopt;
    return fmt::format("no heartbeat, last sign of life {} ms ago", milliseconds_of(silence));
  }

 private:
  static TimePoint now() { return real_clock().now(); }

  Duration liveness_;
  TimePoint next_;
  TimePoint rounds_at_;
  bool may_judge_ = true;
};

std::unexpected<Error> lost(RankId rank, std::string_view why) {
  return error(ErrorCode::kPeerLost, "rank {} lost ({})", index(rank), why);
}

// Rank 0's side.
class Leader {
 public:
  Leader(MeetingState& state, const MeetingOptions& options) : state_(state), options_(options) {
    present_[options.self.rank] = options.self;
  }

  Status listen() {
    WD_ASSIGN_OR_RETURN(listener_, listen_at(options_.leader, options_.timeout));
    const auto hear = [](Stream& stream, TimePoint deadline) {
      return read_message(stream, deadline);
    };
    WD_ASSIGN_OR_RETURN(reception_, Reception::open({.listener = listener_.get(),
                                                     .name = "meeting",
                                                     .key = options_.key,
                                                     .tcp = {options_.liveness_deadline},
                                                     .patience = options_.patience},
                                                    hear));
    return {};
  }

  Status run() {
    const Status outcome = conduct();
    if (outcome) return outcome;
    for (auto& [rank, talk] : callers_)
      static_cast<void>(talk.say(encode_end(outcome.error().message)));
    return outcome;
  }

 private:
  Status conduct() {
    WD_TRY(gather());
    reception_.reset();
    listener_.reset();
    Membership members = membership();
    for (auto& [rank, talk] : callers_)
      if (const Status told = talk.say(encode(members)); !told)
        return lost(rank, told.error().message);
    state_.set_members(std::move(members));
    WD_TRY(await_links());
    for (auto& [rank, talk] : callers_)
      static_cast<void>(talk.say(kLinked));  // whoever is lost now is lost to the fabric
    return {};
  }

  Status gather() {
    const TimePoint deadline = real_clock().now() + options_.timeout;
    TimePoint remind = real_clock().now() + kPatience;
    while (std::ssize(present_) < options_.self.num_ranks) {
      WD_TRY(wait(std::min(deadline, remind)));
      forget_the_gone();
      WD_ASSIGN_OR_RETURN(std::vector<Guest> guests, reception_->take());
      for (Guest& guest : guests)
        admit(std::move(guest));
      forget_the_gone();  // who came and went is not there
      const bool is_late = real_clock().now() >= deadline;
      if (!is_late && real_clock().now() < remind) continue;
      const std::string text = fmt::format("ranks {} have not come", missing());
      if (is_late && !missing().empty()) return error(ErrorCode::kTimeout, "{}", text);
      log_info("meeting at {}: {} yet", options_.leader.to_string(), text);
      remind += kPatience;
    }
    return {};
  }

  // Until something has happened, giving signs of life.
  Status wait(TimePoint until) {
    std::vector<pollfd> polled{{.fd = state_.woken().fd(), .events = POLLIN, .revents = 0}};
    if (reception_ != nullptr)
      for (const pollfd& one : reception_->polled())
        polled.push_back(one);
    for (const auto& [rank, talk] : callers_)
      polled.push_back({.fd = talk.fd(), .events = POLLIN, .revents = 0});
    static_cast<void>(WaitLimit(std::min(until, pulse_.next())).await(polled));
    state_.woken().clear();
    WD_TRY(state_.check());
    if (pulse_.beats())
      for (auto& [rank, talk] : callers_)
        static_cast<void>(talk.say(""));
    return {};
  }

  // Whoever hung up or fell silent while waiting for the others may be back as a new process.
  void forget_the_gone() {
    for (auto caller = callers_.begin(); caller != callers_.end();) {
      auto& [rank, talk] = *caller;
      const auto heard = talk.hear();
      const auto verdict = pulse_.verdict(talk.silence());
      if (heard && !verdict) {
        ++caller;
        continue;
      }
      log_info("meeting: rank {} is gone again: {}", index(rank),
               verdict.value_or(heard ? "" : heard.error().message));
      present_.erase(rank);
      caller = callers_.erase(caller);
    }
  }

  // Whoever is refused is told why; it may come again.
  void admit(Guest guest) {
    Talk talk(std::move(guest.stream));
    Result<Introduction> caller = parse_introduction(guest.words);
    const Status status = caller ? check(*caller) : std::unexpected(caller.error());
    if (!status) {
      static_cast<void>(talk.say(encode_refusal(status.error())));
      reception_->refuse(status.error());
      return;
    }
    const RankId rank = caller->rank;
    callers_.emplace(rank, std::move(talk));
    present_[rank] = *std::move(caller);
    log_info("meeting: rank {} has come, {} of {} are there", index(rank), present_.size(),
             options_.self.num_ranks);
  }

  Status check(const Introduction& caller) const {
    const Introduction& self = options_.self;
    if (caller.num_ranks != self.num_ranks)
      return invalid_argument("rank {} expects {} ranks, the leader {}", index(caller.rank),
                              caller.num_ranks, self.num_ranks);
    if (caller.rules != self.rules)
      return invalid_argument("rank {} runs '{}', the leader '{}'", index(caller.rank),
                              caller.rules, self.rules);
    if (present_.contains(caller.rank))  // the other one may be about to be forgotten
      return error(ErrorCode::kUnavailable, "there are two of rank {}", index(caller.rank));
    return {};
  }

  std::string missing() const {
    std::string text;
    for (int32_t r = 0; r < options_.self.num_ranks; ++r)
      if (!present_.contains(RankId{r})) text += fmt::format("{}{}", text.empty() ? "" : ", ", r);
    return text;
  }

  Membership membership() const {
    std::vector<std::string> hosts;
    Membership members{.epoch = options_.epoch, .token = random_device_bits()};
    for (const auto& [rank, introduction] : present_) {
      hosts.push_back(introduction.host);
      members.addresses.push_back(introduction.address);
    }
    members.node_of = number_nodes(hosts);
    return members;
  }

  Status await_links() {
    const TimePoint deadline = real_clock().now() + options_.timeout;
    std::vector<RankId> waiting;
    for (const auto& [rank, talk] : callers_)
      waiting.push_back(rank);
    while (!waiting.empty() || !state_.is_linked()) {
      WD_TRY(wait(deadline));
      for (auto& [rank, talk] : callers_) {
        const auto heard = talk.hear();
        if (!heard) return lost(rank, heard.error().message);
        for (const std::string& text : *heard) {
          if (text != kLinked) return lost(rank, end_in(text).message);
          std::erase(waiting, rank);
        }
        if (const auto verdict = pulse_.verdict(talk.silence())) return lost(rank, *verdict);
      }
      if (real_clock().now() < deadline) continue;
      std::string late = state_.is_linked() ? "" : " 0";
      for (const RankId rank : waiting)
        late += fmt::format(" {}", index(rank));
      return error(ErrorCode::kTimeout, "ranks{} have not linked", late);
    }
    return {};
  }

  MeetingState& state_;
  const MeetingOptions& options_;
  UniqueFd listener_;
  std::unique_ptr<Reception> reception_;  // while ranks are awaited
  std::map<RankId, Introduction> present_;
  std::map<RankId, Talk> callers_;
  Pulse pulse_{options_.liveness_deadline};
};

// Every other rank's side.
class Follower {
 public:
  Follower(MeetingState& state, const MeetingOptions& options) : state_(state), options_(options) {}

  Status call() {
    const TimePoint deadline = real_clock().now() + options_.timeout;
    Result<UniqueFd> socket;
    do {
      socket =
          connect_to(options_.leader, WaitLimit(deadline).at_most(real_clock().now() + kPatience));
      if (socket) break;
      if (socket.error().code != ErrorCode::kTimeout) return std::unexpected(socket.error());
      log_info("the leader does not answer yet: {}", socket.error().message);
    } while (real_clock().now() < deadline);
    if (!socket) return std::unexpected(socket.error());
    WD_TRY(prepare_socket(socket->get(), {options_.liveness_deadline}));
    // The kernel takes calls for a leader that is stopped, or about to die.
    const WaitLimit answer =
        WaitLimit(deadline).at_most(real_clock().now() + options_.liveness_deadline);
    auto stream = open_stream(*std::move(socket), TlsRole::kClient, options_.key, answer);
    if (!stream) return lost_leader(stream.error().message);
    talk_.emplace(*std::move(stream));
    const Status said = talk_->say(encode(options_.self));
    return said ? said : lost_leader(said.error().message);
  }

  Status run() {
    const Status outcome = converse();
    if (!outcome) static_cast<void>(talk_->say(encode_end(outcome.error().message)));
    return outcome;
  }

 private:
  Status converse() {
    TimePoint deadline = real_clock().now() + options_.timeout + kLeaderFirst;
    bool has_members = false;
    bool has_told = false;
    for (;;) {
      WD_TRY(wait(deadline));
      const auto heard = talk_->hear();
      if (!heard) return lost_leader(heard.error().message);
      for (const std::string& text : *heard) {
        if (has_members) return text == kLinked ? Status{} : std::unexpected(end_in(text));
        WD_ASSIGN_OR_RETURN(Membership members, parse_membership(text, options_.self.num_ranks));
        state_.set_members(std::move(members));
        has_members = true;
        deadline = real_clock().now() + options_.timeout + kLeaderFirst;
      }
      if (const auto verdict = pulse_.verdict(talk_->silence())) return lost_leader(*verdict);
      if (state_.is_linked() && !std::exchange(has_told, true)) say(kLinked);
      if (real_clock().now() >= deadline)
        return error(ErrorCode::kTimeout, "waiting for the other ranks {}",
                     has_members ? "to link" : "to come");
    }
  }

  Status wait(TimePoint until) {
    std::array polled{pollfd{.fd = state_.woken().fd(), .events = POLLIN, .revents = 0},
                      pollfd{.fd = talk_->fd(), .events = POLLIN, .revents = 0}};
    static_cast<void>(WaitLimit(std::min(until, pulse_.next())).await(polled));
    state_.woken().clear();
    WD_TRY(state_.check());
    if (pulse_.beats()) say("");
    return {};
  }

  // The leader's end shows in hear(), behind why it ended.
  void say(std::string_view text) { static_cast<void>(talk_->say(text)); }

  std::unexpected<Error> lost_leader(std::string why) const {
    // A leader with a key cannot tell a caller without one.
    if (!options_.key && !(talk_ && talk_->has_heard()))
      why += "; has it a key that this rank has not?";
    return lost(RankId{0}, why);
  }

  MeetingState& state_;
  const MeetingOptions& options_;
  std::optional<Talk> talk_;
  Pulse pulse_{options_.liveness_deadline};
};

// Runs one side to its end and says how it ended.
template <typename Side>
void take_part(MeetingState& state, Side& side, const net::Address& leader) {
  const Status outcome = side.run();
  if (outcome) {
    state.set_all_linked();
  } else {
    state.fail(
        with_context(outcome.error(), fmt::format("meeting at {}", leader.to_string())).error());
  }
}

}  // namespace

Result<std::unique_ptr<Meeting>> Meeting::begin(MeetingOptions options) {
  WD_ASSIGN_OR_RETURN(std::unique_ptr<MeetingState> state, MeetingState::create());
  const auto kept = std::make_shared<const MeetingOptions>(std::move(options));
  const auto start = [&](auto side) {
    return std::thread(
        [&state = *state, side = std::move(side), kept] { take_part(state, *side, kept->leader); });
  };
  if (kept->self.rank == RankId{0}) {
    auto side = std::make_unique<Leader>(*state, *kept);
    WD_TRY(side->listen());
    return std::make_unique<Meeting>(std::move(state), start(std::move(side)));
  }
  auto side = std::make_unique<Follower>(*state, *kept);
  WD_TRY(side->call());
  return std::make_unique<Meeting>(std::move(state), start(std::move(side)));
}

Meeting::Meeting(std::unique_ptr<MeetingState> state, std::thread thread)
    : state_(std::move(state)), thread_(std::move(thread)) {}

Meeting::~Meeting() {
  state_->stop();
  thread_.join();
}

Result<Membership> Meeting::members() {
  return state_->await_members();
}

int Meeting::interrupt() const {
  return state_->has_failed().fd();
}

Status Meeting::all_linked() {
  state_->set_linked();
  return state_->await_all_linked();
}

Error Meeting::give_up(const Error& error) {
  const Error cause = state_->await_cause(error, kNewsPatience);
  state_->fail(cause);
  return cause;
}

}  // namespace wideep::fabric
