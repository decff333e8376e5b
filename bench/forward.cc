// How fast a whole model computes, in shares of the machine measured in the same run.
//
//   forward_bench DIR [--quantization FORMAT] [--mla-prompt-form FORM] [--only TEXT]… [--threads N]
//                     [--rounds N] [--isa LEVEL] [--context TOKENS]
//
// DIR is a checkpoint, e.g. of `wideep make-checkpoint ds2 DIR`. Decode at several batch sizes
// (every sequence its own random tokens; 64 of context, or more: then those before the last 64 are
// copies of one sequence's) against the bytes that the step must read; prefill against the
// arithmetic it must do. Prints JSON, with the share of each phase.
#include "base/check.h"
#include "calibration.h"
#include "command_line.h"
#include "ep/local_all_to_all.h"
#include "model/golden_run.h"
#include "model/load_model.h"
#include "rounds.h"
#include "step_bytes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace wideep::bench {
namespace {

using namespace model;

constexpr int64_t kBlockTokens = 64;
constexpr int64_t kRowsMax = 2048;
constexpr int64_t kOwnContext = 64;  // tokens that a sequence at decode shares with no other
constexpr int64_t kCalibrationBytes = int64_t{512} << 20;

struct Options : RunOptions {
  std::string folder;
  std::optional<math::WeightFormat> quantization;
  std::string prompt_form = "absorbed";
  int64_t context = kOwnContext;  // tokens of each sequence at decode
};

void declare(CommandLine& command, Options& options) {
  command.add_positional("DIR", &options.folder, "A checkpoint.", true);
  command.add_quantization(&options.quantization);
  command.add("--mla-prompt-form", &options.prompt_form,
              {.group = "Run",
               .help = "How prompts attend to latents.",
               .choices = {"absorbed", "expanded"}});
  command.add("--context", &options.context,
              {.group = "Run", .help = "Tokens of each sequence at decode, at least 64."});
  command.add_run(&options);
}

class ForwardBench {
 public:
  ForwardBench(const Options& options, std::unique_ptr<DecoderModel> model, ThreadPool& pool)
      : options_(options), model_(std::move(model)), pool_(pool), memory_(kCalibrationBytes) {
    memory_.prefault();
    const ModelConfig& config = model_->config();
    all_to_all_ = std::make_unique<ep::LocalAllToAll>(
        pool, math::kernels(model_->numeric().isa),
        ep::LocalAllToAllOptions{.formats = model_->numeric().row_formats(),
                                 .hidden = config.hidden_size,
                                 .num_experts = config.num_experts(),
                                 .top_k = config.router.top_k,
                                 .tokens_max = kRowsMax});
  }

  void run() {
    add_calibration(cases_, options_.isa, pool_, memory_.bytes());
    for (const int64_t batch : {1, 4, 16, 32})
      add_decode(batch);
    for (const int64_t tokens : {512, 2048})
      add_prefill(tokens, tokens, tokens);
    add_prefill(2048, 2048, 512);
    // A turn of a chat: 64 new tokens, and the same with 256 generated ones before them.
    for (const int64_t tokens : {64, 320})
      add_prefill(tokens, 2048, tokens);
    run_rounds(cases_, options_.rounds, Timing::kWall, options_.threads);
    fmt::print("{}", to_json(cases_, fmt::format("{}, {} threads", model_->numeric().describe(),
                                                 options_.threads)));
    print_tokens_and_phases();
  }

 private:
  // What one decode step of `batch` tokens reads: weights and the cached context.
  double decode_bytes(int64_t batch) const {
    const kv::KvLayout layout = model_->kv_layout(kBlockTokens);
    const int64_t token_bytes = layout.groups.front().block_bytes() / kBlockTokens;
    return step_bytes(*model_, batch) + static_cast<double>(batch * options_.context * token_bytes);
  }

  // Multiply-adds of one token's weights, twice; the head only for the last token of a prompt.
  double flops_per_token() const {
    const ModelConfig& config = model_->config();
    double active = 0;
    const Status visited = for_each_tensor(config, false, [&](const TensorSpec& spec) -> Status {
      const bool is_table =
          spec.name == "model.embed_tokens.weight" || spec.name == "lm_head.weight";
      const auto values = static_cast<double>(spec.rows * spec.cols);
      const double share = spec.expert < 0 ? 1.0
                                           : static_cast<double>(config.router.top_k) /
                                                 static_cast<double>(config.num_experts());
      if (!is_table) active += values * share;
      return {};
    });
    WD_CHECK(visited.has_value());
    return 2 * active;
  }

  TokenId next_token() {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return TokenId{
        static_cast<int32_t>((state_ >> 33) % static_cast<uint64_t>(model_->config().vocab_size))};
  }

  // One forward of `count` fresh tokens for each sequence; logits of each sequence's last row.
  void forward(std::span<GoldenSequence> sequences, int64_t count) {
    batch_.clear();
    for (GoldenSequence& sequence : sequences) {
      while (std::ssize(sequence.blocks) * kBlockTokens < sequence.length + count)
        sequence.blocks.push_back(new_block());
      const int64_t first_row = batch_.num_rows();
      for (int64_t i = 0; i < count; ++i)
        batch_.tokens.push_back(next_token());
      batch_.sequences.push_back({.first_row = first_row,
                                  .count = count,
                                  .position = sequence.length,
                                  .num_prompt = count > 1 ? count : 0,
                                  .block_data = {sequence.blocks}});
      batch_.logit_rows.push_back(batch_.num_rows() - 1);
    }
    const auto logits = model_->forward(batch_, *all_to_all_);
    WD_CHECK(logits.has_value());
  }

  // The context of sequences: computed for the first, but for the last tokens, and copied.
  void fill(std::span<GoldenSequence> sequences) {
    GoldenSequence& first = sequences.front();
    while (first.length < options_.context - kOwnContext) {
      const int64_t count = std::min(kRowsMax, options_.context - kOwnContext - first.length);
      forward(sequences.first(1), count);
      first.length += count;
    }
    for (GoldenSequence& sequence : sequences.subspan(1)) {
      sequence.length = first.length;
      for (const std::byte* block : first.blocks) {
        sequence.blocks.push_back(new_block());
        std::memcpy(sequence.blocks.back(), block, blocks_.back().size());
      }
    }
    forward(sequences, kOwnContext);
    for (GoldenSequence& sequence : sequences)
      sequence.length = options_.context - 1;
  }

  std::byte* new_block() {
    const kv::KvLayout layout = model_->kv_layout(kBlockTokens);
    blocks_.emplace_back(static_cast<size_t>(layout.groups.front().block_bytes()));
    blocks_.back().prefault();
    return blocks_.back().data();
  }

  void add_decode(int64_t batch) {
    if (!options_.wants(fmt::format("decode {}", batch))) return;
    auto sequences = std::make_shared<std::vector<GoldenSequence>>(static_cast<size_t>(batch));
    fill(*sequences);
    const std::string name = fmt::format("decode {}", batch);
    cases_.push_back({.name = name,
                      .work = decode_bytes(batch),
                      .unit = "GB/s",
                      .yardstick = "read",
                      .run = [this, name, sequences] {
                        model_->profile().reset();
                        forward(*sequences, 1);
                        note_phases(name);
                      }});
    tokens_.push_back(batch);
  }

  // The last `tokens` of `context`, `chunk` at a time.
  void add_prefill(int64_t tokens, int64_t context, int64_t chunk) {
    auto sequences = std::make_shared<std::vector<GoldenSequence>>(1);
    const bool int8 = model_->numeric().row_formats().input == math::RowFormat::kInt8;
    std::string name = fmt::format("prefill {}", tokens);
    if (tokens < context) name += fmt::format(" of {}", context);
    if (chunk < tokens) name += fmt::format(" by {}", chunk);
    if (!options_.wants(name)) return;
    cases_.push_back({.name = name,
                      .work = flops_per_token() * static_cast<double>(tokens),
                      .unit = "GFLOPS",
                      .yardstick = int8 ? "int8 peak" : "bf16 peak",
                      .run = [this, name, sequences, tokens, context, chunk] {
                        model_->profile().reset();
                        int64_t& length = sequences->front().length;
                        for (length = context - tokens; length < context; length += chunk)
                          forward(*sequences, chunk);
                        note_phases(name);
                      }});
    tokens_.push_back(tokens);
  }

  void note_phases(const std::string& name) {
    std::array<double, kNumPhases>& sum = phases_[name];
    for (int phase = 0; phase < kNumPhases; ++phase) {
      sum[static_cast<size_t>(phase)] += std::chrono::duration<double, std::milli>(
                                             model_->profile().spent(static_cast<Phase>(phase)))
                                             .count();
    }
  }

  void print_tokens_and_phases() const {
    fmt::print("{{\"tokens_per_second\": {{");
    std::string separator;
    const size_t first = cases_.size() - tokens_.size();
    for (size_t i = 0; i < tokens_.size(); ++i) {
      const Case& c = cases_[first + i];
      const double per_rate = static_cast<double>(tokens_[i]) * 1e9 / c.work;
      fmt::print("{}\"{}\": [{:.1f}, {:.1f}]", separator, c.name, median(c.rates) * per_rate,
                 std::ranges::max(c.rates) * per_rate);
      separator = ", ";
    }
    fmt::print("}},\n \"phase_shares\": {{");
    separator = "\n  ";
    for (const auto& [name, sums] : phases_) {
      double total = 0;
      for (const double sum : sums)
        total += sum;
      fmt::print("{}\"{}\": {{", separator, name);
      for (int phase = 0; phase < kNumPhases; ++phase) {
        fmt::print("{}\"{}\": {:.3f}", phase == 0 ? "" : ", ",
                   model::name(static_cast<Phase>(phase)),
                   sums[static_cast<size_t>(phase)] / total);
      }
      fmt::print("}}");
      separator = ",\n  ";
    }
    fmt::print("}}}}\n");
  }

  const Options options_;
  std::unique_ptr<DecoderModel> model_;
  ThreadPool& pool_;
  AlignedBuffer memory_;
  std::unique_ptr<ep::LocalAllToAll> all_to_all_;
  std::vector<AlignedBuffer> blocks_;
  Batch batch_;
  std::vector<Case> cases_;
  std::vector<int64_t> tokens_;  // of each case behind the calibration
  std::map<std::string, std::array<double, kNumPhases>> phases_;  // ms
  uint64_t state_ = 1;
};

int run(int argc, char** argv) {
  Options options;
  options.rounds = 5;
  CommandLine command("forward_bench", "How fast a whole model computes.");
  declare(command, options);
  if (const auto status = command.parse(argc, argv)) return *status;
  options.context = std::max(kOwnContext, options.context);
  ThreadPool pool({.num_threads = options.threads, .spin = std::chrono::microseconds(200)});
  LoadOptions load{.isa = options.isa, .rows_max = kRowsMax, .block_tokens = kBlockTokens};
  load.weights.expert_format = options.quantization;
  load.weights.linear_format = options.quantization;
  load.weights.expanded_prompts = options.prompt_form == "expanded";
  auto loaded = load_model(options.folder, pool, load);
  if (!loaded) {
    fmt::print(stderr, "{}\n", loaded.error().message);
    return 1;
  }
  ForwardBench(options, std::move(*loaded), pool).run();
  return 0;
}

}  // namespace
}  // namespace wideep::bench

int main(int argc, char** argv) {
  return wideep::bench::run(argc, argv);
}
