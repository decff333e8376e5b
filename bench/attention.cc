// How near attention comes to the machine, over a bf16 cache of MLA (576 values a token):
//
//   attention_bench [--isa LEVEL] [--threads N] [--rounds N] [--heads N] [--only TEXT]
//                   [--timing wall|cpu]
//
// decode: one query per sequence, GB/s of cache read, compared with plain reads. prefill: a chunk
// at the end of a prompt, FLOPs of the visible pairs, compared with the bf16 peak. expanded: the
// same prompt with keys (192) and values (128) per head, and the products that either form needs
// besides: what decides which form prompts should take. Prints JSON.
#include "math/attention.h"

#include "base/matrix.h"
#include "base/random.h"
#include "base/thread_pool.h"
#include "calibration.h"
#include "math/gemm.h"

#include <fmt/format.h>

#include <cstdlib>
#include <memory>
#include <string>

namespace wideep::bench {
namespace {

using namespace math;

constexpr int64_t kLatent = 512;
constexpr int64_t kRope = 64;
constexpr int64_t kNope = 128;
constexpr int64_t kHeadValue = 128;
constexpr int64_t kBlockTokens = 64;
constexpr int64_t kCacheBytes = int64_t{1} << 30;

struct Options {
  Isa isa = detect_isa();
  int threads = 2;
  int rounds = 9;
  int64_t heads = 16;
  std::string only;
  Timing timing = Timing::kWall;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    const char* value = argv[i + 1];
    if (flag == "--isa") options.isa = parse_isa(value).value_or(detect_isa());
    if (flag == "--threads") options.threads = std::atoi(value);
    if (flag == "--rounds") options.rounds = std::atoi(value);
    if (flag == "--heads") options.heads = std::atoll(value);
    if (flag == "--only") options.only = value;
    if (flag == "--timing" && std::string(value) == "cpu") options.timing = Timing::kCpu;
  }
  return options;
}

AttentionShape absorbed_shape(int64_t heads) {
  AttentionShape shape;
  shape.heads_per_kv = heads;
  shape.key_width = kLatent + kRope;
  shape.value_width = kLatent;
  shape.token_values = kLatent + kRope;
  shape.scale = 0.07F;
  return shape;
}

AttentionShape expanded_shape(int64_t heads) {
  AttentionShape shape;
  shape.num_kv_heads = heads;
  shape.key_width = kNope + kRope;
  shape.value_width = kHeadValue;
  shape.token_values = heads * (shape.key_width + shape.value_width);
  shape.value_offset = heads * shape.key_width;
  shape.scale = 0.07F;
  return shape;
}

// One call of Attention: `batch` sequences of which the last `count` positions ask; other memory at
// each run.
class Call {
 public:
  struct Size {
    int64_t batch;
    int64_t context;  // positions in all
    int64_t count;
  };

  Call(ThreadPool& pool,
       const Kernels& kernels,
       const AttentionShape& shape,
       Size size,
       std::span<const std::byte> cache)
      : shape_(shape),
        size_(size),
        cache_(cache),
        q_(size.batch * size.count, shape.num_heads() * shape.key_width),
        out_(size.batch * size.count, shape.num_heads() * shape.value_width),
        blocks_(static_cast<size_t>(size.batch)),
        attention_(pool, kernels, shape, kBlockTokens, size.batch * size.count) {
    Random random(7);
    for (int64_t i = 0; i < q_.rows(); ++i) {
      for (float& value : q_.row(i))
        value = random.symmetric();
    }
  }

  void run() {
    chunks_.clear();
    for (int64_t s = 0; s < size_.batch; ++s) {
      auto& blocks = blocks_[static_cast<size_t>(s)];
      blocks.clear();
      for (int64_t b = 0; b * kBlockTokens < size_.context; ++b)
        blocks.push_back(next_block());
      chunks_.push_back({.q = q_.row(s * size_.count).data(),
                         .out = out_.row(s * size_.count).data(),
                         .position = size_.context - size_.count,
                         .count = size_.count,
                         .blocks = blocks});
    }
    attention_.forward(chunks_);
  }

  double cache_bytes() const {
    return static_cast<double>(size_.batch * size_.context * shape_.token_values * 2);
  }

  // Two operations per multiply-add; the pairs that causality leaves.
  double operations() const {
    double pairs = 0;
    for (int64_t i = 0; i < size_.count; ++i)
      pairs += static_cast<double>(size_.context - size_.count + i + 1);
    return pairs * static_cast<double>(size_.batch * shape_.num_heads() * 2 *
                                       (shape_.key_width + shape_.value_width));
  }

 private:
  const std::byte* next_block() {
    const auto bytes = static_cast<size_t>(kBlockTokens * shape_.token_values * 2);
    if (offset_ + bytes > cache_.size()) offset_ = 0;
    const std::byte* block = cache_.data() + offset_;
    offset_ += bytes;
    return block;
  }

  AttentionShape shape_;
  Size size_;
  std::span<const std::byte> cache_;
  Matrix<float> q_;
  Matrix<float> out_;
  std::vector<std::vector<const std::byte*>> blocks_;
  std::vector<AttentionChunk> chunks_;
  Attention attention_;
  size_t offset_ = 0;
};

// The products with a head's part of kv_b that absorbed queries and results need: 128 -> 512 of
// each query, 512 -> 128 of each result, for every head.
class Absorption {
 public:
  Absorption(ThreadPool& pool, const Kernels& kernels, int64_t heads, int64_t rows)
      : pool_(pool),
        kernels_(kernels),
        heads_(heads),
        up_bytes_(static_cast<size_t>(packed_bytes(WeightFormat::kBf16, kLatent, kNope))),
        down_bytes_(static_cast<size_t>(packed_bytes(WeightFormat::kBf16, kHeadValue, kLatent))),
        queries_(RowFormat::kBf16, rows, kNope),
        results_(RowFormat::kBf16, rows, kLatent),
        x_(rows, kNope),
        y_(rows, kLatent),
        q_(rows, heads * kLatent),
        out_(rows, heads * kHeadValue) {}

  void run() {
    const Rows queries = queries_.encode(kernels_, x_.view());
    const Rows results = results_.encode(kernels_, y_.view());
    const PackedMatrix up{WeightFormat::kBf16, kLatent, kNope, up_bytes_.bytes()};
    const PackedMatrix down{WeightFormat::kBf16, kHeadValue, kLatent, down_bytes_.bytes()};
    pool_.for_each(heads_, [&](int64_t head, int) {
      const int64_t rows = q_.rows();
      gemm(kernels_, up, queries, {0, up.num_panels()},
           {q_.data() + head * kLatent, rows, kLatent, q_.cols()});
      gemm(kernels_, down, results, {0, down.num_panels()},
           {out_.data() + head * kHeadValue, rows, kHeadValue, out_.cols()});
    });
  }

 private:
  ThreadPool& pool_;
  const Kernels& kernels_;
  int64_t heads_;
  AlignedBuffer up_bytes_;
  AlignedBuffer down_bytes_;
  RowBuffer queries_;
  RowBuffer results_;
  Matrix<float> x_;
  Matrix<float> y_;
  Matrix<float> q_;
  Matrix<float> out_;
};

// What the expanded form needs instead: kv_b of every cached row, rounded to bf16 rows.
class Expansion {
 public:
  Expansion(ThreadPool& pool, const Kernels& kernels, int64_t heads, int64_t tokens)
      : pool_(pool),
        kernels_(kernels),
        n_(heads * (kNope + kHeadValue)),
        weights_(static_cast<size_t>(packed_bytes(WeightFormat::kBf16, n_, kLatent))),
        in_(RowFormat::kBf16, tokens, kLatent),
        out_rows_(RowFormat::kBf16, tokens, n_),
        x_(tokens, kLatent),
        out_(tokens, n_) {}

  void run() {
    const PackedMatrix w{WeightFormat::kBf16, n_, kLatent, weights_.bytes()};
    parallel_gemm(pool_, kernels_, w, in_.encode(pool_, kernels_, x_.view()), out_.view());
    out_rows_.encode(pool_, kernels_, out_.view());
  }

 private:
  ThreadPool& pool_;
  const Kernels& kernels_;
  int64_t n_;
  AlignedBuffer weights_;
  RowBuffer in_;
  RowBuffer out_rows_;
  Matrix<float> x_;
  Matrix<float> out_;
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        table_(kernels(options.isa)),
        pool_({.num_threads = options.threads, .spin = std::chrono::microseconds(200)}),
        cache_(kCacheBytes) {
    auto* values = reinterpret_cast<uint16_t*>(cache_.data());
    for (int64_t i = 0; i < kCacheBytes / 2; ++i)
      values[i] = static_cast<uint16_t>(0x3C00 | (i * 2654435761 >> 9 & 0x807F));
  }

  void add_all();

  std::string run() {
    run_rounds(cases_, options_.rounds, options_.timing, options_.threads);
    return to_json(cases_, fmt::format("{} threads ({} time), {}, {} heads", options_.threads,
                                       options_.timing == Timing::kCpu ? "cpu" : "wall",
                                       name(options_.isa), options_.heads));
  }

 private:
  bool wants(const std::string& name) const {
    return name.find(options_.only) != std::string::npos;
  }

  void add_call(const std::string& name, const AttentionShape& shape, Call::Size size);
  template <typename Work>
  void add_products(const std::string& name, int64_t rows);

  Options options_;
  const Kernels& table_;
  ThreadPool pool_;
  AlignedBuffer cache_;
  std::vector<Case> cases_;
};

void Bench::add_call(const std::string& name, const AttentionShape& shape, Call::Size size) {
  if (!wants(name)) return;
  const auto call = std::make_shared<Call>(pool_, table_, shape, size, cache_.bytes());
  const bool decodes = size.count == 1;
  cases_.push_back({.name = name,
                    .work = decodes ? call->cache_bytes() : call->operations(),
                    .unit = decodes ? "GB/s" : "GFLOPS",
                    .yardstick = decodes ? "read" : "bf16 peak",
                    .least_seconds = 0.005,
                    .run = [call] { call->run(); }});
}

template <typename Work>
void Bench::add_products(const std::string& name, int64_t rows) {
  if (!wants(name)) return;
  const auto work = std::make_shared<Work>(pool_, table_, options_.heads, rows);
  const auto operations =
      static_cast<double>(rows * options_.heads * 2 * kLatent * (kNope + kHeadValue));
  cases_.push_back({.name = name,
                    .work = operations,
                    .unit = "GFLOPS",
                    .yardstick = "bf16 peak",
                    .least_seconds = 0.005,
                    .run = [work] { work->run(); }});
}

void Bench::add_all() {
  add_calibration(cases_, options_.isa, pool_, cache_.bytes());
  const AttentionShape absorbed = absorbed_shape(options_.heads);
  const AttentionShape expanded = expanded_shape(options_.heads);
  for (const int64_t context : {1024, 4096, 16384}) {
    for (const int64_t batch : {1, 4, 32})
      add_call(fmt::format("decode context {} batch {}", context, batch), absorbed,
               {batch, context, 1});
  }
  for (const int64_t tokens : {512, 2048}) {
    add_call(fmt::format("prefill {} absorbed", tokens), absorbed, {1, tokens, tokens});
    add_products<Absorption>(fmt::format("prefill {} absorbed products", tokens), tokens);
    add_call(fmt::format("prefill {} expanded", tokens), expanded, {1, tokens, tokens});
    add_products<Expansion>(fmt::format("prefill {} expanded products", tokens), tokens);
  }
  add_call("prefill 512 of 4096 absorbed", absorbed, {1, 4096, 512});
  add_call("prefill 512 of 4096 expanded", expanded, {1, 4096, 512});
}

}  // namespace
}  // namespace wideep::bench

int main(int argc, char** argv) {
  using namespace wideep::bench;
  Bench bench(parse(argc, argv));
  bench.add_all();
  fmt::print("{}", bench.run());
  return 0;
}
