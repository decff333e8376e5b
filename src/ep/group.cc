#include "ep/group.h"

#include "base/log.h"

#include <algorithm>

namespace wideep::ep {
namespace {

constexpr fabric::ChannelId kStageChannel{kNumChannels};  // behind those of the exchange
constexpr std::chrono::seconds kPatience{10};             // then say who is awaited

}  // namespace

std::string describe(const ExchangeOptions& options, const Placement& placement) {
  const ExchangeShape& shape = options.shape;
  return fmt::format(
      "hidden {}, top_k {}, tokens_max {}, dispatch {}, input {}, combine {}, "
      "low latency up to {}, placement {:016x}",
      shape.hidden, shape.top_k, shape.tokens_max, name(shape.formats.dispatch),
      name(shape.formats.input), name(shape.formats.combine), options.low_latency_tokens_max,
      placement.hash());
}

Result<std::unique_ptr<Group>> Group::join(const GroupOptions& options,
                                           Placement placement,
                                           const math::Kernels& kernels,
                                           ThreadPool& pool) {
  WD_TRY(validate(options.exchange.shape));
  auto group = std::make_unique<Group>(Checked{}, std::move(placement));
  fabric::JoinOptions join = options.join;
  join.num_channels = kNumChannels + 1;
  join.rules += fmt::format("{}{}", join.rules.empty() ? "" : "; ",
                            describe(options.exchange, group->placement_));
  const auto arena_bytes = [&](const std::vector<NodeId>& node_of) {
    return ExchangeLayout(options.exchange.shape, node_of).arena_bytes();
  };
  WD_ASSIGN_OR_RETURN(group->fabric_, fabric::join(join, arena_bytes));
  WD_ASSIGN_OR_RETURN(group->exchange_, FabricAllToAll::create(*group->fabric_, group->placement_,
                                                               kernels, pool, options.exchange));
  return group;
}

Status Group::check_peers() const {
  // Who has left may have done so because another was lost: that one is named.
  using Life = fabric::PeerState::Life;
  for (const Life life : {Life::kLost, Life::kLeft}) {
    for (int32_t r = 0; r < fabric_->shape().num_ranks(); ++r) {
      const fabric::PeerState state = fabric_->peer_state(RankId{r});
      if (state.life != life) continue;
      return error(ErrorCode::kPeerLost, "rank {} lost ({})", r,
                   life == Life::kLeft ? "left" : state.reason);
    }
  }
  return {};
}

Status Group::await_ready(Duration timeout) {
  return await_all(Stage::kReady, "ranks that load", timeout);
}

Status Group::await_done(Duration timeout) {
  return await_all(Stage::kDone, "ranks that have requests", timeout);
}

// The word of a stage stands for those before it.
Status Group::await_all(Stage stage, std::string_view who, Duration timeout) {
  const auto seq = static_cast<uint64_t>(stage);
  const TimePoint deadline = fabric_->clock().now() + timeout;
  const int32_t num_ranks = fabric_->shape().num_ranks();
  for (int32_t r = 0; r < num_ranks; ++r)
    WD_TRY(fabric_->signal(RankId{r}, kStageChannel, {.seq = seq}));
  const auto missing = [&] {
    std::vector<RankId> ranks;
    for (int32_t r = 0; r < num_ranks; ++r)
      if (fabric_->poll(RankId{r}, kStageChannel).value_or(fabric::Signal{}).seq < seq)
        ranks.push_back(RankId{r});
    return ranks;
  };
  const auto ready = [&] { return missing().empty(); };
  const auto what = [&] { return std::string(who); };
  for (;;) {
    const TimePoint now = fabric_->clock().now();
    const Status status = fabric_->wait({.ready = ready, .what = what, .missing = missing},
                                        std::min<TimePoint>(deadline, now + kPatience));
    const bool goes_on =
        !status && status.error().code == ErrorCode::kTimeout && fabric_->clock().now() < deadline;
    if (!goes_on) return status;
    log_info("{}", status.error().message);
  }
}

}  // namespace wideep::ep
