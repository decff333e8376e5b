// How near attention comes to the machine, over a bf16 cache of MLA (576 values a token):
//
//   attention_bench [--isa LEVEL] [--threads N] [--rounds N] [--heads N] [--only TEXT]
//                   [--timing wall|cpu]
//
// decode: one query per sequence, GB/s of cache read, compared with plain reads; gqa: the same with
// 32 query heads on 4 kv heads of 128 values instead. prefill: a chunk
// at the end of a prompt, FLOPs of the visible pairs, compared with the bf16 peak. expanded: the
// same prompt with keys (192) and values (128) per head, their expansion included; the absorbed
// form needs the `products` besides. Prints JSON.
#include "math/attention.h"

#include "base/matrix.h"
#include "base/random.h"
#include "base/thread_pool.h"
#include "calibration.h"
#include "command_line.h"
#include "math/expanded_attention.h"
#include "math/gemm.h"

#include <fmt/format.h>

#include <functional>
#include <memory>
#include <string>

namespace wideep::bench {
namespace {

using namespace math;

constexpr int64_t kLatent = 512;
constexpr int64_t kRope = 64;
constexpr int64_t kNope = 128;
constexpr int64_t kHeadValue = 128;
constexpr int64_t kTokenBytes = (kLatent + kRope) * 2;
constexpr int64_t kBlockTokens = 64;
constexpr int64_t kCacheBytes = int64_t{1} << 30;

struct Options : RunOptions {
  int64_t heads = 16;
  std::string timing = "wall";
};

void declare(CommandLine& command, Options& options) {
  command.add_run(&options);
  command.add("--heads", &options.heads, {.group = "Shape", .help = "Heads of the queries."});
  command.add(
      "--timing", &options.timing,
      {.group = "Run", .help = "What counts as time (rounds.h).", .choices = {"wall", "cpu"}});
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

AttentionShape gqa_shape() {
  AttentionShape shape;
  shape.num_kv_heads = 4;
  shape.heads_per_kv = 8;
  shape.key_width = 128;
  shape.value_width = 128;
  shape.token_values = 2 * shape.num_kv_heads * 128;
  shape.value_offset = shape.num_kv_heads * 128;
  shape.scale = 0.07F;
  return shape;
}

ExpandedShape expanded_shape(int64_t heads) {
  return {.num_heads = heads,
          .latent_width = kLatent,
          .rope_width = kRope,
          .nope_width = kNope,
          .value_width = kHeadValue,
          .token_values = kLatent + kRope,
          .scale = 0.07F};
}

// A form of attention over a cache.
struct Form {
  int64_t heads;
  int64_t key_width;  // of its queries
  int64_t value_width;
  int64_t token_bytes = kTokenBytes;
  int64_t expanded_values = 0;  // of each head and cached row, computed first
  std::function<void(std::span<const AttentionChunk>)> attend;
};

// One call: `batch` sequences of which the last `count` positions ask; other memory at each run.
class Call {
 public:
  struct Size {
    int64_t batch;
    int64_t context;  // positions in all
    int64_t count;
  };

  Call(Form form, Size size, std::span<const std::byte> cache)
      : form_(std::move(form)),
        size_(size),
        cache_(cache),
        q_(size.batch * size.count, form_.heads * form_.key_width),
        out_(size.batch * size.count, form_.heads * form_.value_width),
        blocks_(static_cast<size_t>(size.batch)) {
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
    form_.attend(chunks_);
  }

  double cache_bytes() const {
    return static_cast<double>(size_.batch * size_.context * form_.token_bytes);
  }

  // Two operations per multiply-add; the pairs that causality leaves.
  double operations() const {
    double pairs = 0;
    for (int64_t i = 0; i < size_.count; ++i)
      pairs += static_cast<double>(size_.context - size_.count + i + 1);
    const auto expanded = static_cast<double>(size_.context * kLatent * form_.expanded_values);
    return (pairs * static_cast<double>(form_.key_width + form_.value_width) + expanded) *
           static_cast<double>(2 * size_.batch * form_.heads);
  }

 private:
  const std::byte* next_block() {
    const auto bytes = static_cast<size_t>(kBlockTokens * form_.token_bytes);
    if (offset_ + bytes > cache_.size()) offset_ = 0;
    const std::byte* block = cache_.data() + offset_;
    offset_ += bytes;
    return block;
  }

  Form form_;
  Size size_;
  std::span<const std::byte> cache_;
  Matrix<float> q_;
  Matrix<float> out_;
  std::vector<std::vector<const std::byte*>> blocks_;
  std::vector<AttentionChunk> chunks_;
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

// kv_b, packed for the expanded form.
class KvB {
 public:
  explicit KvB(int64_t heads) {
    for (int64_t head = 0; head < heads; ++head) {
      keys_.push_back(matrix(kNope));
      values_.push_back(matrix(kHeadValue));
    }
  }

  ExpansionWeights weights() const { return {.keys = keys_, .values = values_}; }

 private:
  PackedMatrix matrix(int64_t n) {
    const AlignedBuffer& bytes =
        memory_.emplace_back(static_cast<size_t>(packed_bytes(WeightFormat::kBf16, n, kLatent)));
    return {WeightFormat::kBf16, n, kLatent, bytes.bytes()};
  }

  std::vector<AlignedBuffer> memory_;
  std::vector<PackedMatrix> keys_;
  std::vector<PackedMatrix> values_;
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
    const Timing timing = options_.timing == "cpu" ? Timing::kCpu : Timing::kWall;
    run_rounds(cases_, options_.rounds, timing, options_.threads);
    return to_json(cases_, fmt::format("{} threads ({} time), {}, {} heads", options_.threads,
                                       options_.timing, name(options_.isa), options_.heads));
  }

 private:
  Form unexpanded(const AttentionShape& shape, int64_t queries);
  Form expanded(int64_t queries);
  void add_call(const std::string& name, Form form, Call::Size size);
  void add_products(const std::string& name, int64_t rows);

  Options options_;
  const Kernels& table_;
  ThreadPool pool_;
  AlignedBuffer cache_;
  std::vector<Case> cases_;
};

Form Bench::unexpanded(const AttentionShape& shape, int64_t queries) {
  const auto attention = std::make_shared<Attention>(pool_, table_, shape, kBlockTokens, queries);
  return {.heads = shape.num_heads(),
          .key_width = shape.key_width,
          .value_width = shape.value_width,
          .token_bytes = shape.token_values * 2,
          .attend = [attention](auto chunks) { attention->forward(chunks); }};
}

Form Bench::expanded(int64_t queries) {
  const ExpandedShape shape = expanded_shape(options_.heads);
  const auto kv_b = std::make_shared<KvB>(options_.heads);
  const auto attention =
      std::make_shared<ExpandedAttention>(pool_, table_, shape, kBlockTokens, queries);
  return {
      .heads = options_.heads,
      .key_width = shape.key_width(),
      .value_width = shape.value_width,
      .expanded_values = kNope + kHeadValue,
      .attend = [kv_b, attention](auto chunks) { attention->forward(kv_b->weights(), chunks); }};
}

void Bench::add_call(const std::string& name, Form form, Call::Size size) {
  if (!options_.wants(name)) return;
  const auto call = std::make_shared<Call>(std::move(form), size, cache_.bytes());
  const bool decodes = size.count == 1;
  cases_.push_back({.name = name,
                    .work = decodes ? call->cache_bytes() : call->operations(),
                    .unit = decodes ? "GB/s" : "GFLOPS",
                    .yardstick = decodes ? "read" : "bf16 peak",
                    .least_seconds = 0.005,
                    .run = [call] { call->run(); }});
}

void Bench::add_products(const std::string& name, int64_t rows) {
  if (!options_.wants(name)) return;
  const auto work = std::make_shared<Absorption>(pool_, table_, options_.heads, rows);
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
  const AttentionShape mla = absorbed_shape(options_.heads);
  for (const int64_t context : {1024, 4096, 16384}) {
    for (const int64_t batch : {1, 4, 32}) {
      const std::string name = fmt::format("decode context {} batch {}", context, batch);
      add_call(name, unexpanded(mla, batch), {batch, context, 1});
      add_call("gqa " + name, unexpanded(gqa_shape(), batch), {batch, context, 1});
    }
  }
  for (const auto& [tokens, context] :
       {std::pair(512, 512), std::pair(2048, 2048), std::pair(512, 4096), std::pair(64, 4096)}) {
    std::string name = fmt::format("prefill {}", tokens);
    if (tokens < context) name += fmt::format(" of {}", context);
    add_call(name + " absorbed", unexpanded(mla, tokens), {1, context, tokens});
    add_products(name + " absorbed products", tokens);
    add_call(name + " expanded", expanded(tokens), {1, context, tokens});
  }
}

}  // namespace
}  // namespace wideep::bench

int main(int argc, char** argv) {
  using namespace wideep::bench;
  Options options;
  CommandLine command("attention_bench", "How near attention comes to the machine.");
  declare(command, options);
  if (const auto status = command.parse(argc, argv)) return *status;
  Bench bench(options);
  bench.add_all();
  fmt::print("{}", bench.run());
  return 0;
}
