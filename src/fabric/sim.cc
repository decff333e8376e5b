#include "fabric/sim.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <queue>
#include <thread>
#include <utility>

namespace wideep::fabric {
namespace {

using Life = PeerState::Life;

// Given to a thread that waits for it. std::binary_semaphore would do, but it yields some times
// before it sleeps, and on a busy machine each yield lasts as long as all others' time slices.
class Baton {
 public:
  void release() {
    {
      const std::scoped_lock lock(mutex_);
      is_here_ = true;
    }
    has_come_.notify_one();
  }

  void acquire() {
    std::unique_lock lock(mutex_);
    has_come_.wait(lock, [&] { return is_here_; });
    is_here_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable has_come_;
  bool is_here_ = false;
};

enum class EventKind : uint8_t { kRun, kDeadline, kPut, kSignal, kGone, kAccuse, kFault };

struct SimEvent {
  TimePoint time;
  uint64_t order = 0;  // drawn from the seed: who goes first of two at the same time
  uint64_t serial = 0;
  EventKind kind = EventKind::kRun;
  int32_t to = 0;    // whose memory or thread it concerns
  int32_t from = 0;  // who caused it
  // kDeadline: which wait; kGone: Life; kAccuse: the lost rank; kFault: index; kPut: offset;
  // kSignal: channel.
  int64_t value = 0;
  Signal signal{};
  std::vector<std::byte> bytes;
  std::string reason;
};

struct Later {
  bool operator()(const SimEvent& a, const SimEvent& b) const {
    return std::tie(a.time, a.order, a.serial) > std::tie(b.time, b.order, b.serial);
  }
};

class World;

// One rank's end of the world. Everything in here is touched only by whoever holds the baton.
class SimRank final : public Fabric, public Clock {
 public:
  SimRank(World& world, RankId rank);

  RankId rank() const override { return rank_; }

  const Shape& shape() const override;

  const Clock& clock() const override { return *this; }

  TimePoint now() const override;

  int64_t unix_seconds() const override {
    return std::chrono::duration_cast<std::chrono::seconds>(now().time_since_epoch()).count();
  }

  std::span<std::byte> arena() override { return arena_.bytes(); }

  std::span<std::byte> mapped(RankId peer) override;
  Status put(RankId peer, int64_t offset, std::span<const std::byte> bytes) override;
  Status signal(RankId peer, ChannelId channel, const Signal& signal) override;
  std::optional<Signal> poll(RankId peer, ChannelId channel) const override;
  Status wait(const Awaited& awaited, TimePoint deadline) override;
  void wake() override;
  PeerState peer_state(RankId peer) const override;

  WireCounters wire() const override { return wire_; }

 private:
  friend class World;

  struct Peer {
    Life life = Life::kAlive;
    std::string reason;
  };

  Status enter();  // every call passes here: may let others run, fails when killed
  std::optional<RankId> cause_of_failure(const Awaited& awaited) const;
  void accuse(RankId lost);

  World& world_;
  RankId rank_;
  AlignedBuffer arena_;
  std::vector<std::optional<Signal>> lines_;  // [channel][source]
  std::vector<Peer> peers_;
  WireCounters wire_;
  // Per destination node and rank: messages issued earlier do not become visible later than these.
  std::vector<TimePoint> puts_land_by_;     // [rank]; the value of its whole node
  std::vector<TimePoint> signals_land_by_;  // [rank]
  TimePoint messages_lost_after_ = TimePoint::max();

  Baton baton_;
  bool finished_ = false;
  bool killed_ = false;
  TimePoint paused_until_{};
  std::optional<TimePoint> silent_since_;
  const Awaited* awaited_ = nullptr;  // while it waits
  uint64_t wait_serial_ = 0;
  bool run_is_queued_ = false;
  Status status_;
};

class World {
 public:
  World(const Shape& shape, const SimOptions& options, FunctionRef<Status(Fabric&)> body)
      : shape_(shape), options_(options), random_(options.seed), body_(body) {
    for (int32_t rank = 0; rank < shape.num_ranks(); ++rank)
      ranks_.push_back(std::make_unique<SimRank>(*this, RankId{rank}));
    for (size_t i = 0; i < options.faults.size(); ++i) {
      push({.time = TimePoint{} + options.faults[i].at,
            .kind = EventKind::kFault,
            .value = static_cast<int64_t>(i)});
    }
  }

  SimReport run();

 private:
  friend class SimRank;

  SimRank& at(RankId rank) { return *ranks_[subscript(rank)]; }

  SimRank& at(int32_t rank) { return *ranks_[static_cast<size_t>(rank)]; }

  Duration draw(Duration max) {
    return Duration{static_cast<int64_t>(random_.uniform() * static_cast<double>(max.count()))};
  }

  Duration message_delay() {
    const Duration delay = std::chrono::microseconds{1} + draw(options_.delay_max);
    return random_.uniform() < options_.straggler_chance ? delay * 20 : delay;
  }

  void push(SimEvent event);
  void handle(SimEvent& event);
  void trace(const SimEvent& event);
  void queue_run(SimRank& rank, Duration delay);
  void resume(SimRank& rank);
  void look_again(SimRank& rank);
  void gone(const SimEvent& event);
  void start_fault(const SimFault& fault);
  void leave(SimRank& rank);
  // Since when nothing passes between the two, if so.
  std::optional<TimePoint> cut_since(RankId a, RankId b) const;

  bool is_cut(RankId a, RankId b) const { return cut_since(a, b).has_value(); }

  void tell_others(const SimRank& about, Life life, Duration after, const std::string& reason);

  const Shape& shape_;
  const SimOptions& options_;
  Random random_;
  FunctionRef<Status(Fabric&)> body_;
  std::vector<std::unique_ptr<SimRank>> ranks_;
  std::priority_queue<SimEvent, std::vector<SimEvent>, Later> events_;

  struct Cut {
    NodeId node;
    NodeId other;
    TimePoint since;
  };

  std::vector<Cut> cuts_;
  Baton scheduler_;
  TimePoint now_{};
  uint64_t serial_ = 0;
  uint64_t trace_hash_ = 0;
};

// ---- The world: events in order of time.

void World::push(SimEvent event) {
  event.order = random_.bits();
  event.serial = ++serial_;
  events_.push(std::move(event));
}

void World::trace(const SimEvent& event) {
  uint64_t word = trace_hash_;
  for (const int64_t part :
       {event.time.time_since_epoch().count(), static_cast<int64_t>(event.kind), int64_t{event.to},
        int64_t{event.from}, event.value, static_cast<int64_t>(event.signal.seq),
        static_cast<int64_t>(event.signal.count), static_cast<int64_t>(event.bytes.size())})
    word = random_bits(word, static_cast<uint64_t>(part));
  trace_hash_ = word;
}

SimReport World::run() {
  std::vector<std::thread> threads;
  for (const auto& rank : ranks_) {
    queue_run(*rank, draw(options_.compute_max));
    threads.emplace_back([this, &r = *rank] {
      r.baton_.acquire();
      r.status_ = body_(r);
      leave(r);
      r.finished_ = true;
      scheduler_.release();
    });
  }
  const auto all_finished = [&] {
    return std::ranges::all_of(ranks_, [](const auto& rank) { return rank->finished_; });
  };
  while (!all_finished()) {
    WD_CHECK(!events_.empty());  // every wait has a deadline, so there is always a next event
    SimEvent event = std::move(const_cast<SimEvent&>(events_.top()));
    events_.pop();
    now_ = event.time;
    trace(event);
    handle(event);
  }
  for (std::thread& thread : threads)
    thread.join();
  SimReport report{
      .trace_hash = trace_hash_, .num_events = serial_, .virtual_time = now_.time_since_epoch()};
  for (const auto& rank : ranks_)
    report.status.push_back(rank->status_);
  return report;
}

void World::handle(SimEvent& event) {
  SimRank& to = at(event.to);
  switch (event.kind) {
    case EventKind::kRun:
      to.run_is_queued_ = false;
      resume(to);
      break;
    case EventKind::kDeadline:
      if (to.awaited_ != nullptr && to.wait_serial_ == static_cast<uint64_t>(event.value))
        queue_run(to, Duration{0});
      break;
    case EventKind::kPut:
      std::memcpy(to.arena_.data() + event.value, event.bytes.data(), event.bytes.size());
      break;
    case EventKind::kSignal:
      to.lines_[static_cast<size_t>(event.value * shape_.num_ranks() + event.from)] = event.signal;
      look_again(to);
      break;
    case EventKind::kGone:
    case EventKind::kAccuse:
      gone(event);
      break;
    case EventKind::kFault:
      start_fault(options_.faults[static_cast<size_t>(event.value)]);
      break;
  }
}

void World::queue_run(SimRank& rank, Duration delay) {
  if (rank.run_is_queued_) return;
  rank.run_is_queued_ = true;
  push({.time = std::max(now_ + delay, rank.paused_until_),
        .kind = EventKind::kRun,
        .to = index(rank.rank_)});
}

// Hands the baton over and waits until it comes back.
void World::resume(SimRank& rank) {
  if (rank.finished_) return;
  if (rank.paused_until_ > now_) {  // paused since its run was queued
    queue_run(rank, Duration{0});
    return;
  }
  rank.baton_.release();
  scheduler_.acquire();
}

// Something has changed that a waiting rank may have waited for.
void World::look_again(SimRank& rank) {
  if (rank.awaited_ == nullptr || rank.killed_) return;
  if (rank.awaited_->ready() || rank.cause_of_failure(*rank.awaited_))
    queue_run(rank, draw(options_.compute_max));
}

void World::gone(const SimEvent& event) {
  SimRank& to = at(event.to);
  const bool accused = event.kind == EventKind::kAccuse;
  const auto about = static_cast<size_t>(accused ? event.value : event.from);
  SimRank::Peer& peer = to.peers_[about];
  if (peer.life == Life::kLost) return;
  const Life life = accused ? Life::kLost : static_cast<Life>(event.value);
  if (peer.life == Life::kLeft && life != Life::kLost) return;
  peer.life = life;
  peer.reason = event.reason;
  look_again(to);
}

std::optional<TimePoint> World::cut_since(RankId a, RankId b) const {
  const NodeId x = shape_.node_of[subscript(a)];
  const NodeId y = shape_.node_of[subscript(b)];
  for (const Cut& cut : cuts_)
    if ((cut.node == x && cut.other == y) || (cut.node == y && cut.other == x)) return cut.since;
  return std::nullopt;
}

void World::tell_others(const SimRank& about,
                        Life life,
                        Duration after,
                        const std::string& reason) {
  for (const auto& other : ranks_) {
    if (other.get() == &about || is_cut(about.rank_, other->rank_)) continue;
    push({.time = now_ + after + draw(options_.notice_max),
          .kind = EventKind::kGone,
          .to = index(other->rank_),
          .from = index(about.rank_),
          .value = static_cast<int64_t>(life),
          .reason = reason});
  }
}

void World::start_fault(const SimFault& fault) {
  if (fault.kind == SimFault::Kind::kCut) {
    cuts_.push_back({fault.node, fault.other, now_});
    for (const auto& a : ranks_) {
      for (const auto& b : ranks_) {
        if (!is_cut(a->rank_, b->rank_)) continue;
        push({.time = now_ + options_.liveness_deadline + draw(options_.notice_max),
              .kind = EventKind::kGone,
              .to = index(a->rank_),
              .from = index(b->rank_),
              .value = static_cast<int64_t>(Life::kLost),
              .reason = "no heartbeat"});
      }
    }
    return;
  }
  SimRank& rank = at(fault.rank);
  if (rank.finished_ || rank.killed_) return;
  rank.silent_since_ = now_;
  if (fault.kind == SimFault::Kind::kPause) {
    rank.paused_until_ = now_ + fault.length;
    if (fault.length > options_.liveness_deadline)
      tell_others(rank, Life::kLost, options_.liveness_deadline, "no heartbeat");
    return;
  }
  rank.killed_ = true;
  rank.paused_until_ = TimePoint{};
  rank.messages_lost_after_ = now_ + draw(options_.delay_max);  // what was on its way may arrive
  tell_others(rank, Life::kLost, Duration{0}, "connection closed");
  queue_run(rank, Duration{0});
}

// A body has returned: goodbye, after everything that this rank has sent.
void World::leave(SimRank& rank) {
  if (rank.killed_) return;
  const TimePoint last = *std::ranges::max_element(rank.signals_land_by_);
  tell_others(rank, Life::kLeft, std::max(last - now_, Duration{0}), "left");
}

// ---- One rank.

SimRank::SimRank(World& world, RankId rank)
    : world_(world),
      rank_(rank),
      arena_(static_cast<size_t>(world.shape_.arena_bytes)),
      lines_(static_cast<size_t>(world.shape_.num_channels * world.shape_.num_ranks())),
      peers_(static_cast<size_t>(world.shape_.num_ranks())),
      puts_land_by_(peers_.size()),
      signals_land_by_(peers_.size()) {}

const Shape& SimRank::shape() const {
  return world_.shape_;
}

TimePoint SimRank::now() const {
  return world_.now_;
}

Status SimRank::enter() {
  if (!killed_ && world_.random_.uniform() < world_.options_.preempt_chance) {
    world_.queue_run(*this, world_.draw(world_.options_.compute_max));
    world_.scheduler_.release();
    baton_.acquire();
  }
  if (killed_) return error(ErrorCode::kCancelled, "rank {} was killed", index(rank_));
  return {};
}

std::span<std::byte> SimRank::mapped(RankId peer) {
  if (!shape().same_node(rank_, peer)) return {};
  return world_.at(peer).arena_.bytes();
}

Status SimRank::put(RankId peer, int64_t offset, std::span<const std::byte> bytes) {
  WD_CHECK(offset >= 0);
  WD_CHECK(offset + std::ssize(bytes) <= shape().arena_bytes);
  WD_TRY(enter());
  if (shape().same_node(rank_, peer)) {
    std::memcpy(world_.at(peer).arena_.data() + offset, bytes.data(), bytes.size());
    return {};
  }
  wire_.bytes_sent += bytes.size();
  ++wire_.frames_sent;
  const TimePoint lands = world_.now_ + world_.message_delay();
  for (int32_t r = 0; r < shape().num_ranks(); ++r) {
    TimePoint& by = puts_land_by_[static_cast<size_t>(r)];
    if (shape().same_node(peer, RankId{r})) by = std::max(by, lands);
  }
  if (world_.is_cut(rank_, peer) || lands > messages_lost_after_) return {};
  world_.push({.time = lands,
               .kind = EventKind::kPut,
               .to = index(peer),
               .from = index(rank_),
               .value = offset,
               .bytes = {bytes.begin(), bytes.end()}});
  return {};
}

Status SimRank::signal(RankId peer, ChannelId channel, const Signal& signal) {
  WD_CHECK(index(channel) >= 0);
  WD_CHECK(index(channel) < shape().num_channels);
  WD_TRY(enter());
  const auto p = subscript(peer);
  const TimePoint lands =
      std::max({world_.now_ + world_.message_delay(), puts_land_by_[p] + Duration{1},
                signals_land_by_[p] + Duration{1}});
  signals_land_by_[p] = lands;
  if (!shape().same_node(rank_, peer)) {
    wire_.bytes_sent += sizeof(Signal);
    ++wire_.frames_sent;
  }
  if (world_.is_cut(rank_, peer) || lands > messages_lost_after_) return {};
  world_.push({.time = lands,
               .kind = EventKind::kSignal,
               .to = index(peer),
               .from = index(rank_),
               .value = index(channel),
               .signal = signal});
  return {};
}

std::optional<Signal> SimRank::poll(RankId peer, ChannelId channel) const {
  return lines_[static_cast<size_t>(index(channel) * shape().num_ranks() + index(peer))];
}

std::optional<RankId> SimRank::cause_of_failure(const Awaited& awaited) const {
  for (size_t r = 0; r < peers_.size(); ++r)
    if (peers_[r].life == Life::kLost) return RankId{static_cast<int32_t>(r)};
  const bool anyone_left =
      std::ranges::any_of(peers_, [](const Peer& peer) { return peer.life == Life::kLeft; });
  if (!anyone_left) return std::nullopt;
  for (const RankId rank : awaited.missing())
    if (peers_[subscript(rank)].life == Life::kLeft) return rank;
  return std::nullopt;
}

Status SimRank::wait(const Awaited& awaited, TimePoint deadline) {
  WD_TRY(enter());
  const uint64_t serial = ++wait_serial_;
  world_.push({.time = std::max(deadline, world_.now_),
               .kind = EventKind::kDeadline,
               .to = index(rank_),
               .value = static_cast<int64_t>(serial)});
  while (!awaited.ready()) {
    if (const std::optional<RankId> lost = cause_of_failure(awaited)) {
      if (peers_[subscript(*lost)].life == Life::kLost) accuse(*lost);
      return std::unexpected(wait_error(*this, awaited, &*lost));
    }
    if (world_.now_ >= deadline) return std::unexpected(wait_error(*this, awaited, nullptr));
    awaited_ = &awaited;
    world_.scheduler_.release();
    baton_.acquire();
    awaited_ = nullptr;
    if (killed_) return error(ErrorCode::kCancelled, "rank {} was killed", index(rank_));
  }
  return {};
}

// Tells all others whom this rank holds for lost, before it leaves.
void SimRank::accuse(RankId lost) {
  for (const auto& other : world_.ranks_) {
    if (other.get() == this || world_.is_cut(rank_, other->rank_)) continue;
    TimePoint& after = signals_land_by_[subscript(other->rank_)];
    after = std::max(after + Duration{1}, world_.now_ + world_.message_delay());
    world_.push({.time = after,
                 .kind = EventKind::kAccuse,
                 .to = index(other->rank_),
                 .from = index(rank_),
                 .value = index(lost),
                 .reason = fmt::format("reported by rank {}", index(rank_))});
  }
}

void SimRank::wake() {
  world_.look_again(*this);
}

PeerState SimRank::peer_state(RankId peer) const {
  const Peer& p = peers_[subscript(peer)];
  std::optional<TimePoint> since = world_.cut_since(rank_, peer);
  if (!since) since = world_.at(peer).silent_since_;
  return {.life = p.life,
          .silence = since ? world_.now_ - *since : Duration{0},
          .reason = p.reason,
          .transport = peer == rank_ ? "self" : "sim"};
}

}  // namespace

SimReport simulate(const Shape& shape,
                   const SimOptions& options,
                   FunctionRef<Status(Fabric&)> body) {
  WD_CHECK(validate(shape).has_value());
  World world(shape, options, body);
  return world.run();
}

}  // namespace wideep::fabric
