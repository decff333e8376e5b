#include "ep/step_agreement.h"

#include "base/hash.h"

#include <algorithm>
#include <array>

namespace wideep::ep {
namespace {

constexpr int kAverageSteps = 16;
constexpr int kAveragesAllowed = 20;

}  // namespace

StepAgreement::StepAgreement(fabric::Fabric& fabric,
                             const ExchangeOptions& options,
                             uint64_t config_hash)
    : fabric_(fabric),
      options_(options),
      config_hash_(config_hash),
      next_seq_(options.first_seq),
      start_(fabric.clock().now()) {}

Result<StepProgram> StepAgreement::begin(const StepWish& wish) {
  StepProgram result = program({.num_tokens = options_.shape.tokens_max, .has_work = true});
  if (is_first_) {
    start_ = fabric_.clock().now();
  } else {
    start_clock();
    WD_ASSIGN_OR_RETURN(result, agreed());
  }
  const uint64_t seq = next_seq_.load(std::memory_order_relaxed);
  StepWish sent = wish;
  sent.num_tokens = std::clamp<int64_t>(wish.num_tokens, 0, options_.shape.tokens_max);
  for (int32_t r = 0; r < fabric_.shape().num_ranks(); ++r)
    WD_TRY(fabric_.signal(RankId{r}, step_channel(seq), encode(seq, config_hash_, sent)));
  next_seq_.store(seq + 1, std::memory_order_relaxed);
  is_first_ = !result.anyone_has_work;
  const std::array<uint64_t, 4> parts{config_hash_, static_cast<uint64_t>(result.mode),
                                      static_cast<uint64_t>(result.tokens_max),
                                      static_cast<uint64_t>(result.draft_depth)};
  program_hash_ = xxh64(std::as_bytes(std::span(parts)));
  return result;
}

StepProgram StepAgreement::program(const StepWish& most) const {
  return {.mode = most.num_tokens <= options_.low_latency_tokens_max ? Mode::kLowLatency
                                                                     : Mode::kHighThroughput,
          .tokens_max = most.num_tokens,
          .draft_depth = most.draft_depth,
          .anyone_has_work = most.has_work};
}

// The maximum over the wishes that came with the last step.
Result<StepProgram> StepAgreement::agreed() {
  const uint64_t seq = next_seq_.load(std::memory_order_relaxed) - 1;
  StepWish most;
  const auto op = [&] { return fmt::format("wishes of step {}", seq); };
  const auto has_come = [&](RankId rank) -> Result<bool> {
    WD_ASSIGN_OR_RETURN(const std::optional<StepWish> wish,
                        parse_step(fabric_.poll(rank, step_channel(seq)), seq, config_hash_,
                                   options_.shape.tokens_max));
    if (!wish) return false;
    most.num_tokens = std::max(most.num_tokens, wish->num_tokens);
    most.draft_depth = std::max(most.draft_depth, wish->draft_depth);
    most.has_work |= wish->has_work;
    return true;
  };
  WD_TRY(await_all(fabric_, op, deadline(), has_come));
  return program(most);
}

void StepAgreement::start_clock() {
  const TimePoint now = fabric_.clock().now();
  average_ += ((now - start_) - average_) / kAverageSteps;
  start_ = now;
}

TimePoint StepAgreement::deadline() const {
  return fabric_.clock().now() + std::max(options_.progress_deadline, average_ * kAveragesAllowed);
}

bool StepAgreement::is_open() const {
  const uint64_t seq = next_seq_.load(std::memory_order_relaxed);
  for (int32_t r = 0; r < fabric_.shape().num_ranks(); ++r) {
    const std::optional<fabric::Signal> signal = fabric_.poll(RankId{r}, step_channel(seq));
    if (signal && signal->seq == seq) return true;
  }
  return false;
}

Status StepAgreement::sleep_until(TimePoint until) {
  const auto ready = [&] {
    return woken_.load(std::memory_order_acquire) || is_open() || fabric_.clock().now() >= until;
  };
  const auto what = [&] {
    return fmt::format("sleep before step {}", next_seq_.load(std::memory_order_relaxed));
  };
  const auto missing = [] { return std::vector<RankId>{}; };
  const Status status = fabric_.wait({.ready = ready, .what = what, .missing = missing}, until);
  woken_.store(false, std::memory_order_relaxed);
  if (!status && status.error().code == ErrorCode::kTimeout) return {};
  return status;
}

void StepAgreement::wake() {
  woken_.store(true, std::memory_order_release);
  fabric_.wake();
}

}  // namespace wideep::ep
