// How near the kernels come to the machine: memory for few rows, arithmetic for many.
//
//   kernels_bench [--isa LEVEL] [--threads N] [--rounds N] [--only TEXT]… [--hidden N] [--inner N]
//                 [--weight-mib N]
//
// Prints JSON. Cases whose name contains no TEXT are left out, calibration is always there.
#include "base/matrix.h"
#include "base/thread_pool.h"
#include "calibration.h"
#include "command_line.h"
#include "math/ffn.h"
#include "math/gemm.h"
#include "onednn.h"
#include "rounds.h"

#include <fmt/format.h>

#include <cstring>
#include <memory>
#include <string>
#include <thread>

namespace wideep::bench {
namespace {

using namespace math;

struct Options : RunOptions {
  int64_t hidden = 2048;
  int64_t inner = 1024;
  int64_t weight_mib = 1536;  // distinct weights of a case, well above a shared last-level cache
};

void declare(CommandLine& command, Options& options) {
  command.add_run(&options);
  command.add("--hidden", &options.hidden, {.group = "Shape", .help = "Inputs of an expert."});
  command.add("--inner", &options.inner, {.group = "Shape", .help = "Its inner width."});
  command.add("--weight-mib", &options.weight_mib,
              {.group = "Shape", .help = "Distinct weights of a case."});
}

// Weights whose bytes are valid in every format (bf16 0.0115, e4m3 1.5, nibbles 12 and 3) and all
// distinct memory. Values do not change the speed.
class Weights {
 public:
  explicit Weights(int64_t bytes) : storage_(static_cast<size_t>(bytes)) {
    std::memset(storage_.data(), 0x3C, storage_.size());
  }

  std::span<const std::byte> at(int64_t offset, int64_t bytes) const {
    return storage_.bytes().subspan(static_cast<size_t>(offset), static_cast<size_t>(bytes));
  }

  int64_t size() const { return static_cast<int64_t>(storage_.size()); }

 private:
  AlignedBuffer storage_;
};

class Bench {
 public:
  explicit Bench(Options options)
      : options_(std::move(options)),
        table_(kernels(options_.isa)),
        pool_({.num_threads = options_.threads, .spin = std::chrono::microseconds(200)}),
        weights_(options_.weight_mib << 20) {}

  void add_calibration();
  void add_moe(WeightFormat format, int64_t rows_per_expert, int64_t experts);
  void add_single(WeightFormat format, int64_t m, int64_t n, int64_t k);
  void add_linear(WeightFormat format, int64_t m);

  std::string run() {
    run_rounds(cases_, options_.rounds);
    return to_json(cases_, fmt::format("{} threads, {}, hidden {}, inner {}, {} MiB of weights",
                                       options_.threads, name(options_.isa), options_.hidden,
                                       options_.inner, options_.weight_mib));
  }

 private:
  Options options_;
  const Kernels& table_;
  ThreadPool pool_;
  Weights weights_;
  std::vector<Case> cases_;
};

void Bench::add_calibration() {
  bench::add_calibration(cases_, options_.isa, pool_, weights_.at(0, weights_.size()));
}

// One MoE layer, other experts at each run.
struct MoeLayer {
  std::vector<FfnWeights> experts;
  RowBuffer in;
  Matrix<float> out;
  std::vector<std::byte*> out_rows;
  std::vector<FfnGroup> groups;
  std::unique_ptr<Ffn> ffn;
  size_t next = 0;

  void run(int64_t active) {
    for (int64_t g = 0; g < active; ++g)
      groups[static_cast<size_t>(g)].weights = &experts[next++ % experts.size()];
    ffn->forward(groups);
  }
};

void Bench::add_moe(WeightFormat format, int64_t rows_per_expert, int64_t active) {
  const std::string label =
      fmt::format("moe {} {} experts x {} rows", name(format), active, rows_per_expert);
  if (!options_.wants(label)) return;
  auto layer = std::make_shared<MoeLayer>();
  const int64_t up_bytes = packed_gate_up_bytes(format, options_.inner, options_.hidden);
  const int64_t down_bytes = packed_bytes(format, options_.hidden, options_.inner);
  for (int64_t at = 0; at + up_bytes + down_bytes <= weights_.size(); at += up_bytes + down_bytes) {
    layer->experts.push_back({.gate_up = {.format = format,
                                          .n = 2 * options_.inner,
                                          .k = options_.hidden,
                                          .bytes = weights_.at(at, up_bytes)},
                              .down = {.format = format,
                                       .n = options_.hidden,
                                       .k = options_.inner,
                                       .bytes = weights_.at(at + up_bytes, down_bytes)}});
  }
  const int64_t rows = rows_per_expert * active;
  Matrix<float> x(rows, options_.hidden);
  for (int64_t r = 0; r < rows; ++r) {
    for (float& value : x.row(r))
      value = 0.001F;
  }
  layer->in = RowBuffer(input_format(format, Precision::kMixed), rows, options_.hidden);
  const Rows encoded = layer->in.encode(table_, x.view());
  layer->out = Matrix<float>(rows, options_.hidden);
  for (int64_t r = 0; r < rows; ++r)
    layer->out_rows.push_back(reinterpret_cast<std::byte*>(layer->out.row(r).data()));
  for (int64_t g = 0; g < active; ++g) {
    layer->groups.push_back({.in = encoded.slice(g * rows_per_expert, rows_per_expert).pointers,
                             .out = std::span(layer->out_rows)
                                        .subspan(static_cast<size_t>(g * rows_per_expert),
                                                 static_cast<size_t>(rows_per_expert))});
  }
  layer->ffn = std::make_unique<Ffn>(pool_, table_, RowFormat::kF32, rows, options_.inner);
  const bool whole = format == WeightFormat::kInt8 || format == WeightFormat::kInt4;
  const bool few = rows_per_expert <= 8;
  const auto params = static_cast<double>(3 * options_.hidden * options_.inner);
  const double bytes = static_cast<double>((up_bytes + down_bytes) * active);
  const double operations = 2 * params * static_cast<double>(rows);
  cases_.push_back({.name = label,
                    .work = few ? bytes : operations,
                    .unit = few ? "GB/s" : "GOPS",
                    .yardstick = few     ? "read"
                                 : whole ? "int8 peak"
                                         : "bf16 peak",
                    .least_seconds = 0.03,
                    .run = [layer, active] { layer->run(active); }});
}

void Bench::add_single(WeightFormat format, int64_t m, int64_t n, int64_t k) {
  const std::string label = fmt::format("single {} m {} n {} k {}", name(format), m, n, k);
  if (!options_.wants(label)) return;
  const bool whole = format != WeightFormat::kBf16;
  const int64_t bytes = packed_bytes(format, n, k);
  const int copies = static_cast<int>(std::min<int64_t>(256, (int64_t{512} << 20) / bytes));
  const double operations = 2.0 * static_cast<double>(m * n * k);
  const std::string rival = "onednn " + label;
  const std::string peak = whole ? "int8 peak 1 thread" : "bf16 peak 1 thread";
  std::string yardstick = peak;
  if (auto product =
          onednn_product(whole ? OnednnType::kInt8 : OnednnType::kBf16, m, n, k, copies)) {
    cases_.push_back({.name = rival,
                      .work = operations,
                      .unit = "GOPS",
                      .yardstick = peak,
                      .least_seconds = 0.02,
                      .run = std::move(product)});
    yardstick = rival;
  }
  auto in = std::make_shared<RowBuffer>(input_format(format, Precision::kMixed), m, k);
  auto out = std::make_shared<Matrix<float>>(m, n);
  const Rows rows = in->encode(table_, Matrix<float>(m, k).view());
  auto next = std::make_shared<int64_t>(0);
  cases_.push_back(
      {.name = label,
       .work = operations,
       .unit = "GOPS",
       .yardstick = yardstick,
       .least_seconds = 0.02,
       .run = [=, this, keep = in] {
         const PackedMatrix w{
             .format = format, .n = n, .k = k, .bytes = weights_.at(*next * bytes, bytes)};
         *next = (*next + 1) % copies;
         gemm(table_, w, rows, {.begin = 0, .end = w.num_panels()}, out->view());
       }});
}

// A square matrix on all threads, as a layer's projections are: other weights at each run.
void Bench::add_linear(WeightFormat format, int64_t m) {
  const std::string label = fmt::format("linear {} m {}", name(format), m);
  if (!options_.wants(label)) return;
  const int64_t n = options_.hidden;
  const int64_t bytes = packed_bytes(format, n, n);
  const bool whole = format == WeightFormat::kInt8 || format == WeightFormat::kInt4;
  const bool few = m <= 8;
  const double operations = 2.0 * static_cast<double>(m * n * n);
  auto in = std::make_shared<RowBuffer>(input_format(format, Precision::kMixed), m, n);
  auto out = std::make_shared<Matrix<float>>(m, n);
  const Rows rows = in->encode(table_, Matrix<float>(m, n).view());
  auto next = std::make_shared<int64_t>(0);
  cases_.push_back(
      {.name = label,
       .work = few ? static_cast<double>(bytes) : operations,
       .unit = few ? "GB/s" : "GOPS",
       .yardstick = few     ? "read"
                    : whole ? "int8 peak"
                            : "bf16 peak",
       .least_seconds = 0.02,
       .run = [=, this, keep = in] {
         const PackedMatrix w{
             .format = format, .n = n, .k = n, .bytes = weights_.at(*next * bytes, bytes)};
         *next = (*next + 1) % (weights_.size() / bytes);
         parallel_gemm(pool_, table_, w, rows, out->view());
       }});
}

}  // namespace
}  // namespace wideep::bench

int main(int argc, char** argv) {
  using namespace wideep::bench;
  Options options;
  CommandLine command("kernels_bench", "How near the kernels come to the machine.");
  declare(command, options);
  if (const auto status = command.parse(argc, argv)) return *status;
  onednn_cap(std::string(name(options.isa)).c_str());
  Bench bench(options);
  bench.add_calibration();
  for (const WeightFormat format :
       {WeightFormat::kBf16, WeightFormat::kFp8, WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (const auto& [rows, active] :
         {std::pair<int64_t, int64_t>{1, 8}, {2, 32}, {4, 32}, {8, 32}, {16, 32}, {64, 32}})
      bench.add_moe(format, rows, active);
    for (const int64_t m : {1, 4, 8, 16, 32, 64})
      bench.add_linear(format, m);
  }
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1408, 2048}, {2048, 7168}}) {
    for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kInt8}) {
      for (const int64_t m : {1, 4, 16, 64, 512})
        bench.add_single(format, m, n, k);
    }
  }
  fmt::print("{}", bench.run());
}
