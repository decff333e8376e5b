// `wideep bench ep`: dispatch and combine of one MoE layer, against MPI and against memcpy.
#include "base/file.h"
#include "base/rounding.h"
#include "base/topology.h"
#include "cmd/ep_group.h"
#include "cmd/ep_trial.h"
#include "cmd/progress.h"
#include "cmd/verb.h"
#include "ep/group.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

namespace wideep::cmd {
namespace {

constexpr double kSampleSeconds = 0.004;  // of exchanges between two looks at the clock
constexpr int kSampleExchangesMax = 200;
constexpr int32_t kSmallExperts = 64;  // of a model of hidden size below 4096
constexpr int32_t kLargeExperts = 256;

// wideep's own exchange, as a deployment joins it.
class WideepContestant final : public EpContestant {
 public:
  static Result<std::unique_ptr<EpContestant>> create(const EpTrial& trial, RankId rank) {
    auto contestant = std::make_unique<WideepContestant>(trial);
    WD_TRY(contestant->join(rank));
    return contestant;
  }

  explicit WideepContestant(const EpTrial& trial) : trial_(trial), expert_(trial, ep_kernels()) {}

  Status begin() override {
    WD_TRY(group_->exchange().begin_step({.num_tokens = trial_.num_tokens, .has_work = true}));
    return {};
  }

  Status exchange(const EpInputs& inputs, MatrixView<float> x) override {
    ep::FabricAllToAll& exchange = group_->exchange();
    WD_TRY(exchange.start_dispatch(LayerId{0}, inputs.h.view(), inputs.routing()));
    for (;;) {
      WD_ASSIGN_OR_RETURN(const ep::ExpertBatch batch, exchange.next_experts());
      if (batch.experts.empty()) break;
      for (const ep::ExpertRows& rows : batch.experts) {
        const ExpertId expert = inputs.placement.expert_at({group_->fabric().rank(), rows.slot});
        for (size_t i = 0; i < rows.in.size(); ++i)
          expert_.compute(expert, {.in = rows.in[i],
                                   .out = rows.out[i],
                                   .is_far = rows.out_is_far[i] != 0,
                                   .next = i + 1 < rows.in.size() ? rows.in[i + 1] : nullptr});
      }
      expert_.finish();
      WD_TRY(exchange.finish(batch));
    }
    return exchange.combine({}, x);
  }

 private:
  Status join(RankId rank) {
    ep::GroupOptions options;
    options.exchange.shape = {.hidden = trial_.hidden,
                              .top_k = trial_.top_k,
                              .tokens_max = trial_.num_tokens,
                              .formats = trial_.formats};
    options.exchange.low_latency_tokens_max =
        trial_.mode == ep::Mode::kLowLatency ? trial_.num_tokens : 0;
    const int32_t ranks_per_node = divide_up(trial_.num_ranks, trial_.num_nodes);
    options.join = {.rank = rank,
                    .num_ranks = trial_.num_ranks,
                    .leader = {.host = "127.0.0.1", .port = static_cast<uint16_t>(trial_.port)},
                    .node_id = index(rank) / ranks_per_node,
                    .epoch = trial_.epoch};
    WD_ASSIGN_OR_RETURN(const Topology topology, Topology::of_this_machine());
    options.exchange.shared_cache_bytes = topology.shared_cache_bytes();
    options.join.fabric.wait = fabric::WaitPolicy::for_node(trial_.num_ranks, topology.num_cores());
    WD_ASSIGN_OR_RETURN(
        group_,
        ep::Group::join(options, ep::Placement::linear(1, trial_.num_experts, trial_.num_ranks),
                        ep_kernels(), pool_));
    return {};
  }

  const EpTrial trial_;
  EpExpert expert_;
  ThreadPool pool_{{.num_threads = 1}};
  std::unique_ptr<ep::Group> group_;
};

template <typename T>
using Parse = Result<T> (*)(std::string_view);

Result<int64_t> parse_count(std::string_view text) {
  const auto count = parse_human_integer(text);
  if (!count || *count < 1) return invalid_argument("'{}': a positive number is expected", text);
  return *count;
}

Result<double> parse_routing(std::string_view text) {
  if (text == "uniform") return 0.0;
  if (text == "zipf") return 1.0;
  return invalid_argument("'{}': uniform or zipf is expected", text);
}

Result<ep::Mode> parse_mode(std::string_view text) {
  if (text == "ll") return ep::Mode::kLowLatency;
  if (text == "ht") return ep::Mode::kHighThroughput;
  return invalid_argument("'{}': ll or ht is expected", text);
}

Result<math::RowFormat> parse_format(std::string_view text) {
  if (const auto format = math::parse_row_format(text)) return *format;
  return invalid_argument("'{}': f32, bf16, int8 or fp8 is expected", text);
}

// "2,4,8"
template <typename T>
Result<std::vector<T>> parse_list(const std::string& flag, std::string_view text, Parse<T> parse) {
  std::vector<T> values;
  while (true) {
    const size_t comma = text.find(',');
    const Result<T> value = parse(text.substr(0, comma));
    if (!value) return with_context(value.error(), flag);
    values.push_back(*value);
    if (comma == std::string_view::npos) return values;
    text.remove_prefix(comma + 1);
  }
}

double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + std::ssize(values) / 2);
  return values[values.size() / 2];
}

// Times of one contestant: seconds of an exchange, of the slowest rank, one for each round.
Json summary(std::vector<double> seconds) {
  std::ranges::sort(seconds);
  const auto us = [&](size_t i) { return std::round(seconds[i] * 1e7) / 10; };
  Json json;
  json.set("us_median", us(seconds.size() / 2));
  json.set("us_best", us(0));
  json.set("us_p90", us(seconds.size() * 9 / 10));
  return json;
}

double median_ratio(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> ratios;
  for (size_t i = 0; i < a.size(); ++i)
    ratios.push_back(a[i] / b[i]);
  return std::round(median(ratios) * 1000) / 1000;
}

// What a rank must move at least, in bytes read and written: rows are encoded; the experts read a
// row and write a result for each (token, k); results are added to x.
double bytes_moved(const EpTrial& trial) {
  const auto row = [&](math::RowFormat format) {
    return static_cast<double>(math::row_bytes(format, trial.hidden));
  };
  const auto tokens = static_cast<double>(trial.num_tokens);
  const double rows = tokens * static_cast<double>(trial.top_k);
  const double f32 = row(math::RowFormat::kF32);
  const double result = row(trial.formats.combine);
  return tokens * (f32 + row(trial.formats.dispatch)) + rows * (row(trial.formats.input) + result) +
         rows * result + tokens * 2 * f32;
}

double bytes_copied(const EpTrial& trial) {
  return 2 * static_cast<double>(trial.num_tokens * trial.top_k *
                                 math::row_bytes(trial.formats.combine, trial.hidden));
}

class BenchEp final : public Verb {
 public:
  BenchEp()
      : Verb("bench ep",
             "Measure dispatch + combine of expert parallelism against MPI and memcpy.") {
    options.add("--ranks", &ranks_, {.group = "Trials", .help = "Ranks (processes) on this host."});
    options.add("--tokens", &tokens_, {.group = "Trials", .help = "Tokens of each rank."});
    options.add("--hidden", &hidden_, {.group = "Trials", .help = "Hidden sizes."});
    options.add("--routing", &routing_,
                {.group = "Trials", .help = "How experts are chosen: uniform, zipf."});
    options.add("--mode", &modes_,
                {.group = "Trials", .help = "ll (low latency), ht (high throughput)."});
    options.add("--dispatch-format", &dispatch_,
                {.group = "Trials", .help = "Row formats on the way: f32, bf16, fp8, int8."});
    options.add("--combine-format", &combine_,
                {.group = "Trials", .help = "Formats of results: f32, bf16."});
    options.add("--top-k", &top_k_, {.group = "Trials", .help = "Experts of a token."});
    options.add(
        "--experts", &experts_,
        {.group = "Trials", .help = "Experts; 0: 64 for hidden sizes below 4096, else 256."});
    options.add(
        "--nodes", &nodes_,
        {.group = "Trials", .help = "Split the ranks over so many nodes, which talk over TCP."});
    options.add("--rounds", &rounds_,
                {.group = "Run", .help = "How often all contestants take turns."});
    options.add("--mpi", &mpi_,
                {.group = "Run",
                 .help = "The MPI contestant, ep_mpi_bench; looked for beside this program's "
                         "bench/ by default.",
                 .value_name = "FILE"});
    options.add("--with-mpi", &with_mpi_,
                {.group = "Run", .help = "Run against MPI if it is there."});
    options.add("--result-filename", &result_filename_,
                {.group = "Run", .help = "Where to write the JSON, too."});
  }

  int run() override {
    const Status done = measure();
    return done ? kExitOk : fail(done.error());
  }

 private:
  struct Round {
    std::vector<double> wideep;
    std::vector<double> mpi;
    std::vector<double> copy;
  };

  Status measure() {
    WD_ASSIGN_OR_RETURN(const std::vector<EpTrial> trials, all_trials());
    if (rounds_ < 1) return invalid_argument("--rounds {}: at least 1", rounds_);
    WD_TRY(find_mpi());
    Json cases{Json::Array{}};
    Progress progress("bench ep", "trials");
    for (size_t i = 0; i < trials.size(); ++i) {
      progress.update(static_cast<int64_t>(i), std::ssize(trials),
                      fmt::format("{} ranks, {} tokens x {}", trials[i].num_ranks,
                                  trials[i].num_tokens, trials[i].hidden));
      WD_TRY(start_groups(trials[i].num_ranks));
      WD_ASSIGN_OR_RETURN(Json result, run_trial(trials[i]));
      cases.append(std::move(result));
    }
    Json report;
    report.set("what", "dispatch + combine");
    report.set("isa", math::name(math::detect_isa()));
    WD_ASSIGN_OR_RETURN(const Topology topology, Topology::of_this_machine());
    report.set("cores", topology.num_cores());
    report.set("rounds", rounds_);
    // Its name only: results are passed on, and nobody else has this folder.
    report.set("mpi",
               mpi_.empty() ? Json() : Json(std::filesystem::path(mpi_).filename().string()));
    report.set("cases", std::move(cases));
    fmt::print("{}\n", report.dump());
    if (!result_filename_.empty()) WD_TRY(write_file(result_filename_, report.dump() + "\n"));
    return {};
  }

  Result<std::vector<EpTrial>> all_trials() const {
    WD_ASSIGN_OR_RETURN(const auto ranks, parse_list<int64_t>("--ranks", ranks_, parse_count));
    WD_ASSIGN_OR_RETURN(const auto tokens, parse_list<int64_t>("--tokens", tokens_, parse_count));
    WD_ASSIGN_OR_RETURN(const auto hidden, parse_list<int64_t>("--hidden", hidden_, parse_count));
    WD_ASSIGN_OR_RETURN(const auto zipf, parse_list<double>("--routing", routing_, parse_routing));
    WD_ASSIGN_OR_RETURN(const auto modes, parse_list<ep::Mode>("--mode", modes_, parse_mode));
    WD_ASSIGN_OR_RETURN(const auto dispatch,
                        parse_list<math::RowFormat>("--dispatch-format", dispatch_, parse_format));
    WD_ASSIGN_OR_RETURN(const auto combine,
                        parse_list<math::RowFormat>("--combine-format", combine_, parse_format));
    std::vector<EpTrial> trials;
    for (const int64_t r : ranks)
      for (const int64_t h : hidden)
        for (const auto& d : dispatch)
          for (const auto& c : combine)
            for (const double z : zipf)
              for (const int64_t t : tokens)
                for (const ep::Mode mode : modes)
                  trials.push_back({.num_ranks = static_cast<int32_t>(r),
                                    .num_nodes = static_cast<int32_t>(nodes_),
                                    .num_tokens = t,
                                    .hidden = h,
                                    .top_k = top_k_,
                                    .num_experts = num_experts(h),
                                    .zipf = z,
                                    .mode = mode,
                                    .formats = {.dispatch = d, .input = d, .combine = c}});
    for (const EpTrial& trial : trials)
      WD_TRY(check(trial));
    return trials;
  }

  int32_t num_experts(int64_t hidden) const {
    if (experts_ > 0) return static_cast<int32_t>(experts_);
    return hidden < 4096 ? kSmallExperts : kLargeExperts;
  }

  static Status check(const EpTrial& trial) {
    WD_TRY(ep::validate(ep::ExchangeShape{.hidden = trial.hidden,
                                          .top_k = trial.top_k,
                                          .tokens_max = trial.num_tokens,
                                          .formats = trial.formats}));
    if (trial.hidden % 64 != 0)
      return invalid_argument("--hidden {}: a multiple of 64 is expected", trial.hidden);
    if (trial.num_ranks > 64 || trial.num_nodes < 1 || trial.num_nodes > trial.num_ranks)
      return invalid_argument("{} ranks on {} nodes: at most 64, one node for each at most",
                              trial.num_ranks, trial.num_nodes);
    if (trial.top_k > trial.num_experts || trial.num_experts > ep::kExpertsMax)
      return invalid_argument("--top-k {} of {} experts", trial.top_k, trial.num_experts);
    return {};
  }

  // Beside this program, unless it was named.
  Status find_mpi() {
    if (!with_mpi_) mpi_.clear();
    if (!with_mpi_ || !mpi_.empty()) return {};
    WD_ASSIGN_OR_RETURN(const std::filesystem::path self, program_path());
    const std::string found = self.parent_path() / "bench" / "ep_mpi_bench";
    if (access(found.c_str(), X_OK) == 0) mpi_ = found;
    return {};
  }

  // Both contestants' processes live for all trials of one number of ranks.
  Status start_groups(int32_t num_ranks) {
    if (num_ranks == num_ranks_) return {};
    wideep_.reset();
    mpi_group_.reset();
    num_ranks_ = num_ranks;
    WD_ASSIGN_OR_RETURN(wideep_, EpGroup::start(num_ranks, [&](const std::string& name) {
                          return Result<std::vector<pid_t>>(fork_ranks(
                              num_ranks, [&](RankId rank) { return serve(name, rank); }));
                        }));
    if (mpi_.empty()) return {};
    WD_ASSIGN_OR_RETURN(const Topology topology, Topology::of_this_machine());
    std::vector<std::string> command = {"mpirun", "--allow-run-as-root",    "--bind-to", "none",
                                        "-n",     fmt::to_string(num_ranks)};
    if (num_ranks > topology.num_cores()) command.push_back("--oversubscribe");
    command.push_back(mpi_);
    WD_ASSIGN_OR_RETURN(mpi_group_, EpGroup::start(num_ranks, [&](const std::string& name) {
                          command.push_back(name);
                          return start_program(command);
                        }));
    return {};
  }

  static int serve(const std::string& name, RankId rank) {
    const auto socket = EpGroup::call(name, rank);
    const Status status = socket ? serve_trials(*socket, rank, WideepContestant::create)
                                 : std::unexpected(socket.error());
    return status ? kExitOk : fail(status.error());
  }

  Result<Json> run_trial(EpTrial trial) {
    trial.epoch = ++epoch_;
    WD_ASSIGN_OR_RETURN(trial.port, free_port());
    EpOrder order{.kind = EpOrder::Kind::kPrepare, .trial = trial};
    WD_ASSIGN_OR_RETURN(const auto ours, wideep_->order(order));
    bool is_same = true;
    if (mpi_group_) {
      WD_ASSIGN_OR_RETURN(const auto theirs, mpi_group_->order(order));
      for (size_t r = 0; r < ours.size(); ++r)
        is_same &= ours[r].hash == theirs[r].hash;
      if (!is_same) return error(ErrorCode::kDataLoss, "MPI gives other bits than wideep");
    }
    WD_ASSIGN_OR_RETURN(const Round round, take_turns());
    return describe(trial, round);
  }

  Result<Round> take_turns() {
    WD_ASSIGN_OR_RETURN(const double once, slowest(*wideep_, EpOrder::Kind::kExchange, 2));
    const auto count = static_cast<int32_t>(
        std::clamp(kSampleSeconds / std::max(once, 1e-7), 2.0, double{kSampleExchangesMax}));
    Round round;
    for (int64_t i = 0; i < rounds_; ++i) {
      WD_ASSIGN_OR_RETURN(round.wideep.emplace_back(),
                          slowest(*wideep_, EpOrder::Kind::kExchange, count));
      if (mpi_group_) {
        WD_ASSIGN_OR_RETURN(round.mpi.emplace_back(),
                            slowest(*mpi_group_, EpOrder::Kind::kExchange, count));
      }
      WD_ASSIGN_OR_RETURN(round.copy.emplace_back(),
                          slowest(*wideep_, EpOrder::Kind::kCopy, count));
    }
    return round;
  }

  static Result<double> slowest(EpGroup& group, EpOrder::Kind kind, int32_t count) {
    WD_ASSIGN_OR_RETURN(const auto answers, group.order({.kind = kind, .count = count}));
    double most = 0;
    for (const EpAnswer& answer : answers)
      most = std::max(most, answer.seconds);
    return most;
  }

  Json describe(const EpTrial& trial, const Round& round) const {
    Json json;
    json.set("ranks", trial.num_ranks);
    json.set("nodes", trial.num_nodes);
    json.set("tokens", trial.num_tokens);
    json.set("hidden", trial.hidden);
    json.set("top_k", trial.top_k);
    json.set("experts", trial.num_experts);
    json.set("routing", trial.zipf == 0 ? "uniform" : "zipf");
    json.set("mode", trial.mode == ep::Mode::kLowLatency ? "ll" : "ht");
    json.set("dispatch_format", math::name(trial.formats.dispatch));
    json.set("combine_format", math::name(trial.formats.combine));
    json.set("wideep", summary(round.wideep));
    if (!round.mpi.empty()) {
      json.set("mpi", summary(round.mpi));
      json.set("time_of_mpi", median_ratio(round.wideep, round.mpi));
    }
    json.set("memcpy", summary(round.copy));
    const double passes = bytes_moved(trial) / bytes_copied(trial);
    json.set("memcpy_passes", std::round(passes * 1000) / 1000);
    std::vector<double> floors = round.copy;
    for (double& floor : floors)
      floor *= passes;
    json.set("share_of_floor", median_ratio(floors, round.wideep));
    json.set("bytes_moved", static_cast<int64_t>(bytes_moved(trial)));
    return json;
  }

  static Result<int32_t> free_port() {
    WD_ASSIGN_OR_RETURN(const auto listener, fabric::listen_at({.host = "127.0.0.1"}));
    WD_ASSIGN_OR_RETURN(const net::Address address,
                        fabric::local_address(listener.get(), {.host = "127.0.0.1"}));
    return address.port;
  }

  std::string ranks_ = "2,4,8";
  std::string tokens_ = "1,8,32,128,1024";
  std::string hidden_ = "2048,7168";
  std::string routing_ = "uniform,zipf";
  std::string modes_ = "ll,ht";
  std::string dispatch_ = "bf16";
  std::string combine_ = "bf16";
  int64_t top_k_ = 8;
  int64_t experts_ = 0;
  int64_t nodes_ = 1;
  int64_t rounds_ = 20;
  std::string mpi_;
  bool with_mpi_ = true;
  std::string result_filename_;

  int32_t num_ranks_ = 0;  // of the groups that run
  uint64_t epoch_ = 0;
  std::unique_ptr<EpGroup> wideep_;
  std::unique_ptr<EpGroup> mpi_group_;
};

}  // namespace

std::unique_ptr<Verb> make_bench_ep() {
  return std::make_unique<BenchEp>();
}

}  // namespace wideep::cmd
