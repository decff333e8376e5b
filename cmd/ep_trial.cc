#include "cmd/ep_trial.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/topology.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>

namespace wideep::cmd {
namespace {

constexpr size_t kCopyWindow = 256 << 20;
constexpr int kWarmUp = 2;          // exchanges before the clock starts
constexpr int64_t kJudgedMax = 64;  // tokens of a rank that the judge looks at
constexpr int64_t kTurn = 64;       // values
constexpr int64_t kBlock = 512;     // values of a result that are written at once
constexpr int64_t kCacheLine = 64;

// Values of a row that become values of a result in another format.
struct Block {
  math::RowFormat from{};
  math::RowFormat to{};  // kBf16 or kF32
  const std::byte* in = nullptr;
  std::byte* out = nullptr;
  int64_t count = 0;
  uint16_t salt = 0;  // see salt_of
};

template <typename To, typename From, typename F>
[[gnu::always_inline]] inline void transform(const Block& block, F&& f) {
  const auto* __restrict in = reinterpret_cast<const From*>(block.in);
  auto* __restrict out = reinterpret_cast<To*>(block.out);
  const int64_t count = block.count;  // as far as the compiler knows, `out` may change it
  for (int64_t i = 0; i < count; ++i)
    out[i] = f(in[i]);
}

// Takes the bits of a bf16 from each value: the upper half of an f32; of a code, those of a number
// between 2^-31 and 2 that all its bits show in. Integers only: the same bits however vectorised.
template <typename To>
[[gnu::always_inline]] inline void convert_to(const Block& block) {
  constexpr int kShift = sizeof(To) * 8 - 16;
  const auto bf16 = [](uint32_t bits) { return static_cast<To>(bits << kShift); };
  if (block.from == math::RowFormat::kF32) {
    transform<To, uint32_t>(block, [&](uint32_t value) { return bf16(value >> 16); });
  } else if (block.from == math::RowFormat::kBf16) {
    transform<To, uint16_t>(block, [&](uint16_t value) { return bf16(value); });
  } else {
    const uint32_t salt = block.salt;
    transform<To, uint8_t>(
        block, [&](uint8_t code) { return bf16((((code * 0x101U) & 0x8F7FU) | 0x3000U) ^ salt); });
  }
}

[[gnu::always_inline]] inline void convert_values(const Block& block) {
  if (block.to == math::RowFormat::kF32) return convert_to<uint32_t>(block);
  convert_to<uint16_t>(block);
}

[[gnu::target("avx512bw")]] void convert_wide(const Block& block) {
  convert_values(block);
}

void convert(math::Isa isa, const Block& block) {
  if (isa >= math::Isa::kAvx512) return convert_wide(block);
  convert_values(block);
}

int64_t value_bytes(math::RowFormat format) {
  return math::row_scale_offset(format, kTurn) / kTurn;
}

// The scales of a row as seven bits of a mantissa, so that they show, too.
uint16_t salt_of(const EpTrial& trial, const std::byte* row) {
  uint64_t mixed = 0;
  const math::RowFormat format = trial.formats.input;
  const int64_t end = math::row_bytes(format, trial.hidden);
  for (int64_t i = math::row_scale_offset(format, trial.hidden); i < end; i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, row + i, sizeof word);
    mixed = (mixed ^ word) * 0x9E3779B97F4A7C15U;
  }
  return static_cast<uint16_t>(mixed >> 57);
}

// Draws distinct experts with the given weights: the smallest of exponential waiting times.
class ExpertDraw {
 public:
  explicit ExpertDraw(const EpTrial& trial)
      : top_k_(static_cast<size_t>(trial.top_k)), waits_(static_cast<size_t>(trial.num_experts)) {
    Random random(trial.seed);
    order_.resize(waits_.size());
    std::iota(order_.begin(), order_.end(), 0);
    for (size_t i = order_.size(); i > 1; --i)
      std::swap(order_[i - 1], order_[random.below(i)]);
    for (size_t e = 0; e < order_.size(); ++e)
      weights_.push_back(std::pow(1.0 + static_cast<double>(order_[e]), -trial.zipf));
  }

  void draw(Random& random, std::vector<ExpertId>& experts) {
    for (size_t e = 0; e < waits_.size(); ++e)
      waits_[e] = {-std::log(1.0 - random.uniform()) / weights_[e], static_cast<int32_t>(e)};
    std::ranges::partial_sort(waits_, waits_.begin() + static_cast<std::ptrdiff_t>(top_k_));
    for (size_t k = 0; k < top_k_; ++k)
      experts.push_back(ExpertId{waits_[k].second});
  }

 private:
  const size_t top_k_;
  std::vector<int32_t> order_;
  std::vector<double> weights_;
  std::vector<std::pair<double, int32_t>> waits_;
};

uint64_t hash_of(const Matrix<float>& x) {
  return xxh64({reinterpret_cast<const std::byte*>(x.data()),
                static_cast<size_t>(x.rows() * x.cols()) * sizeof(float)});
}

// With a core for each rank: rank i on core i, as a deployment does it.
void pin(const EpTrial& trial, RankId rank) {
  const auto topology = Topology::of_this_machine();
  if (!topology || trial.num_ranks > topology->num_cores()) return;
  const auto cpus = topology->cpus_of_rank(index(rank), trial.num_ranks);
  if (!cpus) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpus->cpus.front(), &set);
  sched_setaffinity(0, sizeof set, &set);
}

// One rank's state between orders.
class TrialRank {
 public:
  TrialRank(RankId rank, const MakeContestant& make) : rank_(rank), make_(make) {}

  Result<EpAnswer> obey(const EpOrder& order) {
    switch (order.kind) {
      case EpOrder::Kind::kPrepare:
        return prepare(order.trial);
      case EpOrder::Kind::kExchange:
        return exchange(order.count);
      case EpOrder::Kind::kCopy:
        return copy(order.count);
      case EpOrder::Kind::kQuit:
        break;
    }
    return EpAnswer{};
  }

 private:
  Result<EpAnswer> prepare(const EpTrial& trial) {
    contestant_.reset();
    trial_ = trial;
    pin(trial, rank_);
    inputs_.emplace(trial, rank_);
    x_ = Matrix<float>(trial.num_tokens, trial.hidden);
    WD_ASSIGN_OR_RETURN(contestant_, make_(trial, rank_));
    WD_TRY(contestant_->begin());
    WD_TRY(contestant_->exchange(*inputs_, x_.view()));
    WD_TRY(compare_with_judge());
    return EpAnswer{.hash = hash_of(x_)};
  }

  Status compare_with_judge() const {
    const int64_t count = std::min(trial_.num_tokens, kJudgedMax);
    const Matrix<float> expected = judge(trial_, *inputs_, count);
    if (std::memcmp(expected.data(), x_.data(),
                    static_cast<size_t>(count * trial_.hidden) * sizeof(float)) == 0)
      return {};
    return error(ErrorCode::kDataLoss, "rank {}: other bits than the judge's", index(rank_));
  }

  Result<EpAnswer> exchange(int32_t count) {
    WD_TRY(contestant_->begin());
    for (int i = 0; i < kWarmUp; ++i)
      WD_TRY(contestant_->exchange(*inputs_, x_.view()));
    const TimePoint start = real_clock().now();
    for (int32_t i = 0; i < count; ++i)
      WD_TRY(contestant_->exchange(*inputs_, x_.view()));
    return since(start, count);
  }

  // Row by row, each time elsewhere in the window: rows that another core has written, or will
  // read, are not in this core's cache either.
  Result<EpAnswer> copy(int32_t count) {
    if (from_.size() == 0) {
      from_ = AlignedBuffer(kCopyWindow / 2);
      to_ = AlignedBuffer(kCopyWindow / 2);
      from_.prefault();
      to_.prefault();
    }
    const auto row = static_cast<size_t>(math::row_bytes(trial_.formats.combine, trial_.hidden));
    const int64_t rows = trial_.num_tokens * trial_.top_k;
    const TimePoint start = real_clock().now();
    for (int64_t i = 0; i < count * rows; ++i) {
      if (place_ + row > from_.size()) place_ = 0;
      std::memcpy(to_.data() + place_, from_.data() + place_, row);
      place_ += row;
    }
    return since(start, count);
  }

  static EpAnswer since(TimePoint start, int32_t count) {
    const std::chrono::duration<double> spent = real_clock().now() - start;
    return {.seconds = spent.count() / count};
  }

  const RankId rank_;
  const MakeContestant& make_;
  EpTrial trial_;
  std::optional<EpInputs> inputs_;
  Matrix<float> x_;
  std::unique_ptr<EpContestant> contestant_;
  AlignedBuffer from_;
  AlignedBuffer to_;
  size_t place_ = 0;
};

}  // namespace

const math::Kernels& ep_kernels() {
  return math::kernels(math::detect_isa());
}

EpInputs::EpInputs(const EpTrial& trial, RankId rank)
    : placement(ep::LayerPlacement::linear(trial.num_experts, trial.num_ranks)),
      h(trial.num_tokens, trial.hidden) {
  Random random(trial.seed * 1'000'003 + static_cast<uint64_t>(index(rank)) + 1);
  for (int64_t i = 0; i < h.rows() * h.cols(); ++i)
    h.data()[i] = random.symmetric();
  ExpertDraw draw(trial);
  for (int64_t t = 0; t < trial.num_tokens; ++t)
    draw.draw(random, experts);
  for (size_t i = 0; i < experts.size(); ++i)
    weights.push_back(random.symmetric());
}

ep::Routing EpInputs::routing() const {
  return {.num_tokens = h.rows(),
          .top_k = h.rows() == 0 ? 0 : std::ssize(experts) / h.rows(),
          .experts = experts,
          .weights = weights};
}

EpExpert::EpExpert(const EpTrial& trial, const math::Kernels& kernels)
    : trial_(trial),
      kernels_(kernels),
      block_(static_cast<size_t>(math::row_bytes(trial.formats.combine, kBlock))) {}

void EpExpert::compute(ExpertId expert, const EpRow& row) {
  const ep::RowFormats& formats = trial_.formats;
  const int64_t shift = index(expert) * kTurn % trial_.hidden;
  const int64_t tail = trial_.hidden - shift;  // the two parts change places
  std::byte* const second = row.out + math::row_bytes(formats.combine, tail);
  next_ = row.next;
  if (formats.input == formats.combine) {
    const std::byte* const first = row.in + math::row_bytes(formats.combine, shift);
    copy({first, row.in + math::row_bytes(formats.combine, trial_.hidden)}, row.out, row.is_far);
    copy({row.in, first}, second, row.is_far);
    return;
  }
  salt_ = salt_of(trial_, row.in);
  convert_part(row.in, {shift, trial_.hidden}, row.out, row.is_far);
  convert_part(row.in, {0, shift}, second, row.is_far);
}

void EpExpert::copy(std::span<const std::byte> from, std::byte* out, bool is_far) {
  if (!is_far) {
    std::memcpy(out, from.data(), from.size());
    return;
  }
  const int64_t block_bytes = math::row_bytes(trial_.formats.combine, kBlock);
  for (int64_t i = 0; i < std::ssize(from); i += block_bytes) {
    ask_for_next();
    kernels_.stream(from.data() + i, std::min(block_bytes, std::ssize(from) - i), out + i);
  }
}

void EpExpert::convert_part(const std::byte* row, Values values, std::byte* out, bool is_far) {
  const ep::RowFormats& formats = trial_.formats;
  for (int64_t i = values.begin; i < values.end; i += kBlock) {
    const int64_t count = std::min(kBlock, values.end - i);
    const int64_t bytes = count * value_bytes(formats.combine);
    ask_for_next();
    convert(kernels_.isa, {.from = formats.input,
                           .to = formats.combine,
                           .in = row + i * value_bytes(formats.input),
                           .out = is_far ? block_.data() : out,
                           .count = count,
                           .salt = salt_});
    if (is_far) kernels_.stream(block_.data(), bytes, out);
    out += bytes;
  }
}

// As much of it as a block takes. Rows of codes are short and wanted again while they are in a
// cache; others would only push out what is (measured: past it the whole exchange of 1024 x 7168
// takes 4 to 8 % less).
void EpExpert::ask_for_next() {
  if (next_ == nullptr) return;
  const int64_t bytes = math::row_bytes(trial_.formats.input, kBlock);
  const bool is_short = value_bytes(trial_.formats.input) == 1;
  for (int64_t i = 0; i < bytes; i += kCacheLine)
    is_short ? __builtin_prefetch(next_ + i) : __builtin_prefetch(next_ + i, 0, 0);
  next_ += bytes;
}

Matrix<float> judge(const EpTrial& trial, const EpInputs& inputs, int64_t num_tokens) {
  const math::Kernels& kernels = math::reference_kernels();
  const ep::RowFormats& formats = trial.formats;
  EpExpert expert(trial, kernels);
  const auto buffer = [&](math::RowFormat format) {
    return AlignedBuffer(static_cast<size_t>(math::row_bytes(format, trial.hidden)));
  };
  AlignedBuffer wire = buffer(formats.dispatch);
  AlignedBuffer in = buffer(formats.input);
  AlignedBuffer out = buffer(formats.combine);
  std::vector<float> decoded(static_cast<size_t>(trial.hidden));
  Matrix<float> sums(num_tokens, trial.hidden);
  const bool converts = formats.input != formats.dispatch;
  for (int64_t t = 0; t < num_tokens; ++t) {
    kernels.encode_row(formats.dispatch, inputs.h.row(t).data(), trial.hidden, wire.data());
    if (converts) {
      kernels.decode_row(formats.dispatch, wire.data(), trial.hidden, decoded.data());
      kernels.encode_row(formats.input, decoded.data(), trial.hidden, in.data());
    }
    for (int64_t k = 0; k < trial.top_k; ++k) {
      const auto i = static_cast<size_t>(t * trial.top_k + k);
      expert.compute(inputs.experts[i],
                     {.in = converts ? in.data() : wire.data(), .out = out.data()});
      kernels.decode_row(formats.combine, out.data(), trial.hidden, decoded.data());
      kernels.axpy(inputs.weights[i], decoded.data(), trial.hidden, sums.row(t).data());
    }
  }
  return sums;
}

Status serve_trials(const fabric::UniqueFd& socket, RankId rank, const MakeContestant& make) {
  TrialRank trial_rank(rank, make);
  for (;;) {
    EpOrder order;
    const ssize_t count = recv(socket.get(), &order, sizeof order, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count == 0 || order.kind == EpOrder::Kind::kQuit) return {};
    if (count != sizeof order) return error(ErrorCode::kDataLoss, "an order of {} bytes", count);
    const Result<EpAnswer> obeyed = trial_rank.obey(order);
    EpAnswer answer;
    if (obeyed) {
      answer = *obeyed;
    } else {
      fmt::format_to_n(answer.error, sizeof answer.error - 1, "{}", obeyed.error().message);
    }
    if (send(socket.get(), &answer, sizeof answer, MSG_NOSIGNAL) != sizeof answer)
      return error(ErrorCode::kUnavailable, "the bench is gone");
  }
}

}  // namespace wideep::cmd
