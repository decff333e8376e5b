// What it costs to split a model over ranks: one decode step of 32 sequences on 1 rank with 2
// threads against 2 ranks with 1 thread each, on the same cores in turns; each against the bytes
// that its own layout must read (two ranks read everything but the experts twice).
//
//   group_forward_bench DIR [--quantization FORMAT] [--rounds N]
//                       [--namespace A --namespace B --leader ADDRESS]
//
// DIR is a checkpoint, e.g. of `wideep make-checkpoint ds2 DIR`. Every sequence has its own random
// tokens and 64 of context. A third contestant waits for all rows before it computes the shared
// expert: what it loses is what computing while rows travel gains. With two network namespaces the
// two ranks are hosts of their own: each lives in one of them and reaches the other by TCP, however
// slow the link between the namespaces is; ADDRESS is host and port in the first. Prints JSON.
#include "base/check.h"
#include "base/random.h"
#include "base/topology.h"
#include "command_line.h"
#include "ep/fabric_all_to_all.h"
#include "ep/local_all_to_all.h"
#include "fabric/group_fabric.h"
#include "fabric/join.h"
#include "fabric/unique_fd.h"
#include "model/golden_run.h"
#include "model/load_model.h"
#include "rounds.h"
#include "step_bytes.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <barrier>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace wideep::bench {
namespace {

using namespace model;

constexpr int64_t kBlockTokens = 64;
constexpr int64_t kContext = 64;
constexpr int64_t kBatch = 32;
constexpr int32_t kRanks = 2;
constexpr int kSteps = 3;  // of one sample
constexpr int64_t kRowsMax = kBatch * kContext;

LoadOptions load_options(const std::optional<math::WeightFormat>& quantization) {
  LoadOptions load{.rows_max = kRowsMax, .block_tokens = kBlockTokens};
  load.weights.expert_format = quantization;
  load.weights.linear_format = quantization;
  return load;
}

// Sequences that decode the same step over and over, at the same length.
class Decoder {
 public:
  Decoder(DecoderModel& model, ep::AllToAll& all_to_all, int64_t num_sequences, uint64_t seed)
      : runner_(model, all_to_all, kBlockTokens),
        vocab_(model.config().vocab_size),
        random_(seed),
        sequences_(static_cast<size_t>(num_sequences)) {
    run(kContext - 1);
  }

  void step() {
    for (GoldenSequence& sequence : sequences_)
      sequence.length = kContext - 1;
    run(1);
  }

 private:
  void run(int64_t count) {
    std::vector<std::vector<TokenId>> tokens(sequences_.size());
    std::vector<GoldenRunner::Feed> feeds;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      for (int64_t t = 0; t < count; ++t)
        tokens[i].push_back(
            TokenId{static_cast<int32_t>(random_.below(static_cast<uint64_t>(vocab_)))});
      feeds.push_back({.sequence = &sequences_[i], .tokens = tokens[i]});
    }
    const auto logits = runner_.forward(feeds);
    WD_CHECK(logits.has_value());
  }

  GoldenRunner runner_;
  const int64_t vocab_;
  Random random_;
  std::vector<GoldenSequence> sequences_;
};

// An exchange whose dispatch returns only when the rows to compute are here: nothing is computed
// while they travel.
class WaitingAllToAll final : public ep::AllToAll {
 public:
  explicit WaitingAllToAll(ep::AllToAll& inner) : inner_(inner) {}

  bool waits = false;

  Result<ep::StepProgram> begin_step(const ep::StepWish& wish) override {
    return inner_.begin_step(wish);
  }

  Status start_dispatch(LayerId layer,
                        MatrixView<const float> h,
                        const ep::Routing& routing) override {
    WD_TRY(inner_.start_dispatch(layer, h, routing));
    if (!waits) return {};
    WD_ASSIGN_OR_RETURN(first_, inner_.next_experts());
    return {};
  }

  Result<ep::ExpertBatch> next_experts() override {
    if (!first_) return inner_.next_experts();
    return *std::exchange(first_, std::nullopt);
  }

  Status finish(const ep::ExpertBatch& batch) override { return inner_.finish(batch); }

  Status combine(MatrixView<const float> shared, MatrixView<float> x) override {
    return inner_.combine(shared, x);
  }

  int64_t tokens_max() const override { return inner_.tokens_max(); }

 private:
  ep::AllToAll& inner_;
  std::optional<ep::ExpertBatch> first_;
};

// One rank with two threads.
class Alone {
 public:
  Alone(const std::string& folder, const LoadOptions& load)
      : pool_({.num_threads = kRanks, .spin = std::chrono::microseconds(200), .cpus = {0, 1}}),
        model_(*load_model(folder, pool_, load)) {
    const ModelConfig& config = model_->config();
    all_to_all_ = std::make_unique<ep::LocalAllToAll>(
        pool_, math::kernels(model_->numeric().isa),
        ep::LocalAllToAllOptions{.formats = model_->numeric().row_formats(),
                                 .hidden = config.hidden_size,
                                 .num_experts = config.num_experts(),
                                 .top_k = config.router.top_k,
                                 .tokens_max = kRowsMax});
    decoder_ = std::make_unique<Decoder>(*model_, *all_to_all_, kBatch, 1);
  }

  void step() { decoder_->step(); }

  const DecoderModel& model() const { return *model_; }

 private:
  ThreadPool pool_;
  std::unique_ptr<DecoderModel> model_;
  std::unique_ptr<ep::LocalAllToAll> all_to_all_;
  std::unique_ptr<Decoder> decoder_;
};

// Two network namespaces, a host each.
struct Hosts {
  std::array<std::string, kRanks> namespaces;
  net::Address leader;  // in the first
};

// This thread, and those that it starts, see the network of that namespace from now on.
void enter_namespace(const std::string& name) {
  const fabric::UniqueFd space(open(("/var/run/netns/" + name).c_str(), O_RDONLY | O_CLOEXEC));
  WD_CHECK(space && setns(space.get(), CLONE_NEWNET) == 0);
}

// Two ranks with one thread each: threads of this process that share memory as processes do, or
// that reach each other over TCP from host to host.
class Split {
 public:
  Split(const std::string& folder,
        const LoadOptions& load,
        const DecoderModel& whole,
        const std::optional<Hosts>& hosts)
      : hosts_(hosts), go_(kRanks + 1) {
    const ModelConfig& config = whole.config();
    exchange_.shape = {.hidden = config.hidden_size,
                       .top_k = config.router.top_k,
                       .tokens_max = kRowsMax / kRanks,
                       .formats = whole.numeric().row_formats()};
    exchange_.low_latency_tokens_max = exchange_.shape.tokens_max;
    placement_ = ep::Placement::linear(static_cast<int32_t>(config.num_layers),
                                       static_cast<int32_t>(config.num_experts()), kRanks);
    shape_ = {.node_of = std::vector<NodeId>(kRanks), .num_channels = ep::kNumChannels};
    shape_.arena_bytes = arena_bytes(shape_.node_of);
    if (!hosts_) local_ = *fabric::hand_over_in_process(shape_);
    for (int32_t r = 0; r < kRanks; ++r)
      threads_.emplace_back([this, &folder, load, r] { serve(folder, load, RankId{r}); });
    go_.arrive_and_wait();  // all have loaded and prefilled
  }

  ~Split() {
    order_ = Order::kQuit;
    go_.arrive_and_wait();
    for (std::thread& thread : threads_)
      thread.join();
  }

  // Steps on both ranks; with or without work while rows travel.
  void steps(bool waits) {
    order_ = waits ? Order::kWait : Order::kOverlap;
    go_.arrive_and_wait();
    go_.arrive_and_wait();
  }

  double bytes_of_a_rank() const { return bytes_; }

 private:
  enum class Order { kOverlap, kWait, kQuit };

  int64_t arena_bytes(const std::vector<NodeId>& node_of) const {
    return ep::ExchangeLayout(exchange_.shape, node_of).arena_bytes();
  }

  std::unique_ptr<fabric::GroupFabric> connect(RankId id) {
    const fabric::GroupFabricOptions options{.wait = fabric::WaitPolicy::for_node(kRanks, kRanks)};
    if (!hosts_)
      return *fabric::GroupFabric::create(shape_, id, std::move(local_[subscript(id)]), {},
                                          options);
    return *fabric::join({.rank = id,
                          .num_ranks = kRanks,
                          .leader = hosts_->leader,
                          .host = id == RankId{0} ? hosts_->leader.host : "",
                          .node_id = index(id),
                          .num_channels = ep::kNumChannels,
                          .insecure = true,
                          .fabric = options},
                         [&](const std::vector<NodeId>& node_of) { return arena_bytes(node_of); });
  }

  void serve(const std::string& folder, LoadOptions load, RankId id) {
    if (hosts_) enter_namespace(hosts_->namespaces[subscript(id)]);
    ThreadPool pool({.num_threads = 1, .cpus = {index(id)}});
    const auto fabric = connect(id);
    for (int32_t layer = 0; layer < placement_.num_layers(); ++layer) {
      const auto experts = placement_.layer(LayerId{layer}).experts_of(id);
      load.weights.slots.emplace_back(experts.begin(), experts.end());
    }
    const auto model = *load_model(folder, pool, load);
    const auto exchange = *ep::FabricAllToAll::create(
        *fabric, placement_, math::kernels(model->numeric().isa), pool, exchange_);
    WaitingAllToAll waiting(*exchange);
    Decoder decoder(*model, waiting, kBatch / kRanks, 2 + static_cast<uint64_t>(index(id)));
    if (id == RankId{0}) bytes_ = step_bytes(*model, kBatch);
    go_.arrive_and_wait();
    for (;;) {
      go_.arrive_and_wait();
      if (order_ == Order::kQuit) return;
      waiting.waits = order_ == Order::kWait;
      for (int i = 0; i < kSteps; ++i)
        decoder.step();
      go_.arrive_and_wait();
    }
  }

  const std::optional<Hosts> hosts_;
  ep::ExchangeOptions exchange_;
  ep::Placement placement_ = ep::Placement::linear(1, 1, 1);
  fabric::Shape shape_;
  std::vector<fabric::LocalPeers> local_;  // without hosts
  std::barrier<> go_;
  Order order_ = Order::kOverlap;
  double bytes_ = 0;
  std::vector<std::thread> threads_;
};

template <typename Body>
double milliseconds_of(const Body& body) {
  const TimePoint start = real_clock().now();
  body();
  return std::chrono::duration<double, std::milli>(real_clock().now() - start).count() / kSteps;
}

std::vector<double> ratios(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> all;
  for (size_t i = 0; i < a.size(); ++i)
    all.push_back(a[i] / b[i]);
  return all;
}

void run(const std::string& folder,
         const LoadOptions& load,
         int rounds,
         const std::optional<Hosts>& hosts) {
  Alone alone(folder, load);
  Split split(folder, load, alone.model(), hosts);
  std::vector<double> one;
  std::vector<double> two;
  std::vector<double> two_waiting;
  for (int round = 0; round <= rounds; ++round) {
    const double a = milliseconds_of([&] {
      for (int i = 0; i < kSteps; ++i)
        alone.step();
    });
    const double b = milliseconds_of([&] { split.steps(false); });
    const double c = milliseconds_of([&] { split.steps(true); });
    if (round == 0) continue;  // warms up
    one.push_back(a);
    two.push_back(b);
    two_waiting.push_back(c);
  }
  const double one_bytes = step_bytes(alone.model(), kBatch);
  const double two_bytes = split.bytes_of_a_rank() * kRanks;
  fmt::print(
      R"({{"what": "decode step, batch {}", "numeric": "{}", "rounds": {}, )"
      R"("one_rank_two_threads": {{"ms_median": {:.2f}, "ms_best": {:.2f}, "mb_read": {:.0f}}}, )"
      R"("two_ranks_one_thread": {{"ms_median": {:.2f}, "ms_best": {:.2f}, "mb_read": {:.0f}}}, )"
      R"("speed_ratio": {:.3f}, "speed_ratio_to_floors": {:.3f}, )"
      R"("two_ranks_without_overlap": {{"ms_median": {:.2f}}}, "gain_of_overlap": {:.3f}}})"
      "\n",
      kBatch, alone.model().numeric().describe(), rounds, median(one),
      *std::ranges::min_element(one), one_bytes / 1e6, median(two), *std::ranges::min_element(two),
      two_bytes / 1e6, median(ratios(one, two)), median(ratios(one, two)) * two_bytes / one_bytes,
      median(two_waiting), median(ratios(two_waiting, two)) - 1);
}

}  // namespace
}  // namespace wideep::bench

int main(int argc, char** argv) {
  using namespace wideep;
  std::string folder;
  std::optional<math::WeightFormat> quantization;
  int32_t rounds = 10;
  std::vector<std::string> namespaces;
  std::string leader;
  bench::CommandLine command("group_forward_bench", "What it costs to split a model over ranks.");
  command.add_positional("DIR", &folder, "A checkpoint.", true);
  command.add_quantization(&quantization);
  command.add_rounds(&rounds);
  command.add("--namespace", &namespaces,
              {.group = "Run", .help = "Given twice: each rank lives in a network of its own."});
  command.add("--leader", &leader, {.group = "Run", .help = "Where rank 0 listens there."});
  if (const auto status = command.parse(argc, argv)) return *status;
  std::optional<bench::Hosts> hosts;
  if (!namespaces.empty()) {
    const auto address = net::parse_address(leader);
    if (namespaces.size() != bench::kRanks || !address) {
      fmt::print(stderr, "group_forward_bench: two namespaces need the address of a leader\n");
      return 2;
    }
    hosts = bench::Hosts{.namespaces = {namespaces[0], namespaces[1]}, .leader = *address};
  }
  bench::run(folder, bench::load_options(quantization), std::max(1, rounds), hosts);
  return 0;
}
