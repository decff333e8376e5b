#include "cmd/engine_host.h"

#include "base/log.h"
#include "base/utf8.h"
#include "cmd/progress.h"
#include "cmd/speculative_config.h"
#include "ep/local_all_to_all.h"
#include "math/kernels.h"

#include <fmt/format.h>
#include <sched.h>

#include <filesystem>

namespace wideep::cmd {
namespace {

std::vector<int> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return {0};
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

std::string default_cache_dir() {
  if (const auto cache = environment_variable("XDG_CACHE_HOME")) return *cache + "/wideep";
  if (const auto home = environment_variable("HOME")) return *home + "/.cache/wideep";
  return "";
}

Result<std::optional<math::RowFormat>> row_format(const std::string& flag,
                                                  const std::string& text) {
  if (text == "auto") return std::optional<math::RowFormat>();
  for (const auto format : {math::RowFormat::kF32, math::RowFormat::kBf16, math::RowFormat::kFp8,
                            math::RowFormat::kInt8}) {
    if (text == math::name(format)) return std::optional(format);
  }
  return invalid_argument("{}: '{}' is not one of auto, f32, bf16, fp8, int8", flag, text);
}

// The 256 bytes in byte-level BPE's alphabet (spec: printable bytes stand for themselves, the
// others follow from U+0100 on), with ids from `first` on.
Json byte_vocabulary(int64_t first) {
  Json vocabulary{Json::Object{}};
  char32_t stand_in = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool is_printable =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    std::string character;
    append_utf8(character, is_printable ? byte : stand_in++);
    vocabulary.set(character, first + static_cast<int64_t>(byte));
  }
  return vocabulary;
}

// For models without tokenizer.json: every token shows as its number. Text becomes ids beyond the
// vocabulary, which the engine refuses.
Result<std::unique_ptr<tokenizer::Tokenizer>> number_tokenizer(int64_t vocab_size) {
  Json added{Json::Array{}};
  for (int64_t id = 0; id < vocab_size; ++id) {
    Json token;
    token.set("id", id);
    token.set("content", fmt::format(" {}", id));
    for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized", "special"})
      token.set(flag, false);
    added.append(std::move(token));
  }
  Json bpe;
  bpe.set("type", "BPE");
  bpe.set("vocab", byte_vocabulary(vocab_size));
  bpe.set("merges", Json(Json::Array{}));
  Json byte_level;
  byte_level.set("type", "ByteLevel");
  byte_level.set("add_prefix_space", false);
  Json document;
  document.set("added_tokens", std::move(added));
  document.set("pre_tokenizer", byte_level);
  document.set("decoder", byte_level);
  document.set("model", std::move(bpe));
  return tokenizer::Tokenizer::from_json(document, {});
}

std::string phase_text(const model::LoadProgress& now) {
  switch (now.phase) {
    case model::LoadProgress::Phase::kPack:
      return "packing";
    case model::LoadProgress::Phase::kReadCache:
      return "reading packed weights";
    case model::LoadProgress::Phase::kWriteCache:
      return "writing packed weights";
  }
  return "";
}

}  // namespace

void EngineHostOptions::declare_numbers(OptionSet& options) {
  options.add("--block-size", &engine.block_size,
              {.group = "Engine", .help = "Tokens of a KV block: 16, 32, … 512."});
  options.add("--threads", &num_threads,
              {.group = "Engine", .help = "Threads that compute; 0: one per core."});
  options.add("--dtype", &dtype,
              {.group = "Numbers",
               .help = "Arithmetic between products: float32 is the judge's precision.",
               .choices = {"auto", "bfloat16", "float32"}});
  options.add("--quantization", &quantization,
              {.group = "Numbers",
               .help = "Format of the weights in memory; none: as the checkpoint has them.",
               .choices = {"none", "bf16", "fp8", "int8", "int4"},
               .alias = "-q"});
  options.add("--dispatch-dtype", &dispatch_dtype,
              {.group = "Numbers",
               .help = "Format of rows on their way to experts.",
               .choices = {"auto", "f32", "bf16", "fp8", "int8"}});
  options.add("--combine-dtype", &combine_dtype,
              {.group = "Numbers",
               .help = "Format of rows on their way back.",
               .choices = {"auto", "f32", "bf16"}});
  options.add("--isa", &isa,
              {.group = "Numbers",
               .help = "Instruction set of the kernels; part of what decides the bits.",
               .choices = {"auto", "scalar", "avx2", "avx512", "avx512bf16", "amx"}});
  options.add("--speculative-config", &speculative_config,
              {.group = "Speculation",
               .help = "Guess tokens ahead: {\"method\":\"mtp\",\"num_speculative_tokens\":1} "
                       "uses the model's draft layer. The answers stay the same.",
               .value_name = "JSON"});
}

void EngineHostOptions::declare(OptionSet& options) {
  options.add_positional("MODEL", &model_path,
                         "Folder with config.json, safetensors and tokenizer.json.", true);
  options.add("--max-model-len", &engine.max_model_len,
              {.group = "Engine",
               .help = "Longest context, prompt and answer together, in tokens; 0: the model's."});
  options.add("--max-num-seqs", &engine.max_num_seqs,
              {.group = "Engine", .help = "Requests that run at the same time."});
  options.add(
      "--max-num-batched-tokens", &engine.max_num_batched_tokens,
      {.group = "Engine", .help = "Tokens that one step computes; longer prompts come in chunks."});
  options.add("--kv-cache-memory-bytes", &engine.kv_cache_bytes,
              {.group = "Engine",
               .help = "Memory for KV blocks; 0: what max-num-seqs contexts need, at most 4 GiB "
                       "and half of what is free.",
               .value_name = "BYTES"});
  options.add("--num-gpu-blocks-override", &engine.num_kv_blocks,
              {.group = "Engine", .help = "Number of KV blocks, over --kv-cache-memory-bytes."});
  options.add("--enable-prefix-caching", &engine.enable_prefix_caching,
              {.group = "Engine", .help = "Reuse the KV of prompts that begin alike."});
  options.add("--max-num-queued-reqs", &engine.max_num_queued_reqs,
              {.group = "Engine", .help = "Requests that may wait; one more gets 503."});
  options.add("--max-num-queued-tokens", &engine.max_num_queued_tokens,
              {.group = "Engine", .help = "Prompt tokens that may wait; more get 503."});
  declare_numbers(options);
  options.add(
      "--speculation", &speculation,
      {.group = "Speculation",
       .help = "When to guess, if it is configured: while it is measured to pay, or always.",
       .choices = {"measured", "always"}});
  options.add("--cache-dir", &cache_dir,
              {.group = "Loading",
               .help = "Where packed weights are kept for the next start; auto: the user's cache "
                       "folder; empty: nowhere.",
               .value_name = "DIR"});
  options.add(
      "--cache-max-bytes", &cache_max_bytes,
      {.group = "Loading",
       .help = "Most that --cache-dir may hold: the files longest unused go first, those of "
               "running engines never. 0: half of the disk.",
       .value_name = "BYTES"});
}

Result<model::LoadOptions> load_options(const EngineHostOptions& options) {
  model::LoadOptions load;
  load.weights.precision =
      options.dtype == "float32" ? math::Precision::kF32 : math::Precision::kMixed;
  for (const auto format : {math::WeightFormat::kBf16, math::WeightFormat::kFp8,
                            math::WeightFormat::kInt8, math::WeightFormat::kInt4}) {
    if (options.quantization == math::name(format)) {
      load.weights.expert_format = format;
      load.weights.linear_format = format;
    }
  }
  WD_ASSIGN_OR_RETURN(load.dispatch_format, row_format("--dispatch-dtype", options.dispatch_dtype));
  WD_ASSIGN_OR_RETURN(load.combine_format, row_format("--combine-dtype", options.combine_dtype));
  if (options.isa != "auto") {
    load.isa = math::parse_isa(options.isa);
    if (!load.isa) return invalid_argument("--isa: no level '{}'", options.isa);
    if (!math::is_supported(*load.isa)) {
      return invalid_argument("--isa {}: this machine has {} at most", options.isa,
                              math::name(math::detect_isa()));
    }
  }
  WD_ASSIGN_OR_RETURN(const int64_t num_guesses,
                      parse_speculative_config(options.speculative_config));
  load.weights.draft = num_guesses > 0;
  load.weights.cache_dir = options.cache_dir == "auto" ? default_cache_dir() : options.cache_dir;
  load.weights.cache_bytes_max = options.cache_max_bytes;
  load.rows_max = options.engine.max_num_batched_tokens;
  load.block_tokens = options.engine.block_size;
  return load;
}

Result<std::unique_ptr<EngineHost>> EngineHost::create(EngineHostOptions options) {
  auto host = std::make_unique<EngineHost>(Private{}, std::move(options));
  WD_TRY(host->load());
  return host;
}

EngineHost::~EngineHost() = default;

Status EngineHost::load() {
  WD_ASSIGN_OR_RETURN(model::LoadOptions load, load_options(options_));
  std::vector<int> cpus = usable_cpus();
  const auto num_threads = options_.num_threads > 0 ? static_cast<int>(options_.num_threads)
                                                    : static_cast<int>(cpus.size());
  if (num_threads > static_cast<int>(cpus.size()))
    cpus.clear();  // more threads than cores: the kernel places them
  pool_ = std::make_unique<ThreadPool>(ThreadPoolOptions{.num_threads = num_threads, .cpus = cpus});

  const std::string& path = options_.model_path;
  Progress progress("loading " + path, "B");
  if (options_.show_progress) {
    load.weights.progress = [&progress](const model::LoadProgress& now) {
      progress.update(now.bytes_done, now.bytes_total,
                      fmt::format("{} of {} tensors, {}", now.tensors_done, now.tensors_total,
                                  phase_text(now)));
    };
  }
  options_.engine.num_speculative_tokens = load.weights.draft ? 1 : 0;
  options_.engine.adapt_speculation = options_.speculation == "measured";
  WD_ASSIGN_OR_RETURN(model_, model::load_model(path, *pool_, load));
  const model::NumericConfig& numeric = model_->numeric();
  log_info("{}: {} of experts, {} of other weights; {}; {} threads", path,
           bytes_text(static_cast<double>(model_->expert_bytes())),
           bytes_text(static_cast<double>(model_->other_bytes())), numeric.describe(), num_threads);

  const model::ModelConfig& config = model_->config();
  if (std::filesystem::exists(path + "/tokenizer.json")) {
    WD_ASSIGN_OR_RETURN(tokenizer_, tokenizer::Tokenizer::load(path));
  } else {
    log_warning("{}: no tokenizer.json: prompts must be token ids, and answers show them", path);
    WD_ASSIGN_OR_RETURN(tokenizer_, number_tokenizer(config.vocab_size));
  }
  all_to_all_ = std::make_unique<ep::LocalAllToAll>(
      *pool_, math::kernels(numeric.isa),
      ep::LocalAllToAllOptions{.formats = numeric.row_formats(),
                               .hidden = config.hidden_size,
                               .num_experts = config.num_experts(),
                               .top_k = config.router.top_k,
                               .tokens_max = load.rows_max});
  WD_ASSIGN_OR_RETURN(
      engine_, engine::Engine::create(*model_, tokenizer_.get(), real_clock(), options_.engine));
  return {};
}

void EngineHost::start(engine::EngineLoopOptions loop) {
  loop_ =
      std::make_unique<engine::EngineLoop>(*engine_, *all_to_all_, real_clock(), std::move(loop));
}

}  // namespace wideep::cmd
