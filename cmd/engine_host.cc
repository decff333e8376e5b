#include "cmd/engine_host.h"

#include "base/log.h"
#include "base/topology.h"
#include "cmd/progress.h"
#include "cmd/speculative_config.h"
#include "math/kernels.h"
#include "tokenizer/number_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

namespace wideep::cmd {
namespace {

std::string default_cache_dir() {
  if (const auto cache = environment_variable("XDG_CACHE_HOME")) return *cache + "/wideep";
  if (const auto home = environment_variable("HOME")) return *home + "/.cache/wideep";
  return "";
}

Result<std::optional<math::RowFormat>> row_format(const std::string& flag,
                                                  const std::string& text) {
  if (text == "auto") return std::optional<math::RowFormat>();
  if (const auto format = math::parse_row_format(text)) return format;
  return invalid_argument("{}: '{}' is not one of auto, f32, bf16, fp8, int8", flag, text);
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
  options.add(
      "--threads", &num_threads,
      {.group = "Engine",
       .help = "Threads that compute; 0: one per core, or fewer if the container's CPU limit "
               "says so.",
       .max = 4096});
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
  options.add("--mla-prompt-form", &mla_prompt_form,
              {.group = "Numbers",
               .help = "How prompts attend in models with MLA. expanded: long fresh prompts are "
                       "computed faster, but an answer is computed again in the next turn of its "
                       "chat, and what a prompt shares with others is expanded again.",
               .choices = {"absorbed", "expanded"}});
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
  options.add(
      "--max-num-seqs", &engine.max_num_seqs,
      {.group = "Engine", .help = "Requests that run at the same time.", .min = 1, .max = 1 << 16});
  options.add("--max-num-batched-tokens", &engine.max_num_batched_tokens,
              {.group = "Engine",
               .help = "Tokens that one step computes; longer prompts come in chunks.",
               .min = 1,
               .max = 1 << 20});
  options.add("--kv-cache-memory-bytes", &engine.kv_cache_bytes,
              {.group = "Engine",
               .help = "Memory for KV blocks; 0: what max-num-seqs contexts need, at most 4 GiB "
                       "and a quarter of what is free.",
               .value_name = "BYTES"});
  options.add("--num-gpu-blocks-override", &engine.num_kv_blocks,
              {.group = "Engine", .help = "Number of KV blocks, over --kv-cache-memory-bytes."});
  options.add("--enable-prefix-caching", &engine.enable_prefix_caching,
              {.group = "Engine", .help = "Reuse the KV of prompts that begin alike."});
  options.add("--max-num-queued-reqs", &engine.max_num_queued_reqs,
              {.group = "Engine", .help = "Requests that may wait; one more gets 429.", .min = 1});
  options.add("--max-num-queued-tokens", &engine.max_num_queued_tokens,
              {.group = "Engine", .help = "Prompt tokens that may wait; more get 429.", .min = 1});
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
  load.weights.expert_format = load.weights.linear_format =
      math::parse_weight_format(options.quantization);
  load.weights.expanded_prompts = options.mla_prompt_form == "expanded";
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

Status check_flags(const EngineHostOptions& options) {
  WD_TRY(load_options(options));
  if (options.dtype == "float32" &&
      (options.quantization == "int8" || options.quantization == "int4"))
    return invalid_argument("--quantization {} multiplies int8 rows: --dtype float32 has none",
                            options.quantization);
  return engine::check_without_model(options.engine);
}

Result<std::unique_ptr<EngineHost>> EngineHost::create(EngineHostOptions options) {
  auto host = std::make_unique<EngineHost>(Private{}, std::move(options));
  WD_TRY(host->load());
  return host;
}

EngineHost::~EngineHost() = default;

Status EngineHost::load() {
  WD_ASSIGN_OR_RETURN(model::LoadOptions load, load_options(options_));
  WD_ASSIGN_OR_RETURN(const model::Checkpoint checkpoint,
                      model::Checkpoint::open(options_.model_path, {.draft = load.weights.draft}));
  WD_TRY(make_pool());
  if (options_.rank.join) {
    WD_ASSIGN_OR_RETURN(const model::NumericConfig numeric,
                        model::resolve_numeric(checkpoint, load));
    WD_ASSIGN_OR_RETURN(group_, join_group(options_.rank, checkpoint, numeric, load, *pool_));
    log_info("{}", describe(group_->fabric()));
    load.weights.slots =
        slots_of(group_->placement(), group_->fabric().rank(), checkpoint.config());
  }
  WD_TRY(load_model(checkpoint, load));
  WD_TRY(load_tokenizer());
  if (group_ == nullptr) make_local_exchange(load);
  options_.engine.engines_on_host = options_.rank.num_local;
  options_.engine.num_speculative_tokens = load.weights.draft ? 1 : 0;
  options_.engine.adapt_speculation = options_.speculation == "measured";
  WD_ASSIGN_OR_RETURN(
      engine_, engine::Engine::create(*model_, tokenizer_.get(), real_clock(), options_.engine));
  return {};
}

// Threads have a core of their own where the rank has one for each; else the kernel places them.
Status EngineHost::make_pool() {
  WD_ASSIGN_OR_RETURN(const Topology topology, Topology::of_this_machine());
  WD_ASSIGN_OR_RETURN(const RankCpus cpus,
                      topology.cpus_of_rank(options_.rank.local_index, options_.rank.num_local));
  auto num_threads = static_cast<int>(options_.num_threads);
  if (const auto quota = cpu_quota(); quota && num_threads == 0)
    num_threads =
        std::clamp(*quota / options_.rank.num_local, 1, static_cast<int>(cpus.cpus.size()));
  ThreadPoolOptions pool = pinned_pool(cpus, num_threads);
  const bool has_all_cores = pool.num_threads == static_cast<int>(cpus.cpus.size());
  if (cpus.shared || !has_all_cores) pool.cpus.clear();
  pool_ = std::make_unique<ThreadPool>(std::move(pool));
  options_.rank.shared_cache_bytes = topology.shared_cache_bytes();
  if (options_.rank.join) {
    options_.rank.join->fabric.wait =
        fabric::WaitPolicy::for_node(options_.rank.num_local, topology.num_cores());
  }
  return {};
}

Status EngineHost::load_model(const model::Checkpoint& checkpoint, model::LoadOptions load) {
  const std::string& path = options_.model_path;
  Progress progress("loading " + path, "B");
  load.weights.progress = [&](const model::LoadProgress& now) {
    if (options_.show_progress) {
      progress.update(now.bytes_done, now.bytes_total,
                      fmt::format("{} of {} tensors, {}", now.tensors_done, now.tensors_total,
                                  phase_text(now)));
    }
    return group_ != nullptr ? group_->check_peers() : Status{};
  };
  auto loaded = model::load_model(checkpoint, *pool_, load);
  if (!loaded && loaded.error().code == ErrorCode::kPeerLost)
    return with_context(loaded.error(), "while loading");
  WD_ASSIGN_OR_RETURN(model_, std::move(loaded));
  log_info("{}: {} of experts, {} of other weights; {}; {} threads", path,
           bytes_text(static_cast<double>(model_->expert_bytes())),
           bytes_text(static_cast<double>(model_->other_bytes())), model_->numeric().describe(),
           pool_->num_threads());
  return {};
}

Status EngineHost::load_tokenizer() {
  const std::string& path = options_.model_path;
  if (std::filesystem::exists(path + "/tokenizer.json")) {
    WD_ASSIGN_OR_RETURN(tokenizer_, tokenizer::Tokenizer::load(path));
  } else {
    log_warning("{}: no tokenizer.json: prompts must be token ids, and answers show them", path);
    WD_ASSIGN_OR_RETURN(tokenizer_, tokenizer::number_tokenizer(model_->config().vocab_size));
  }
  return {};
}

void EngineHost::make_local_exchange(const model::LoadOptions& load) {
  const model::NumericConfig& numeric = model_->numeric();
  const model::ModelConfig& config = model_->config();
  local_ = std::make_unique<ep::LocalAllToAll>(
      *pool_, math::kernels(numeric.isa),
      ep::LocalAllToAllOptions{
          .formats = numeric.row_formats(),
          .hidden = config.hidden_size,
          .num_experts = config.num_experts(),
          .top_k = config.router.top_k,
          .tokens_max = load.rows_max,
          .num_layers = static_cast<int32_t>(config.num_layers_with_draft(load.weights.draft))});
}

int64_t EngineHost::dispatch_row_bytes() const {
  return math::row_bytes(model_->numeric().dispatch_format, model_->config().hidden_size);
}

ep::AllToAll& EngineHost::all_to_all() {
  if (group_ != nullptr) return group_->exchange();
  return *local_;
}

Status EngineHost::start(engine::EngineLoopOptions loop) {
  if (group_ != nullptr) {
    WD_TRY(group_->await_ready(options_.rank.join->timeout));
    ep::FabricAllToAll& exchange = group_->exchange();
    loop.sleep = [&exchange](TimePoint until) -> Result<bool> {
      WD_TRY(exchange.sleep_until(until));
      return exchange.is_open();
    };
    loop.wake = [&exchange] { exchange.wake(); };
  }
  loop_ =
      std::make_unique<engine::EngineLoop>(*engine_, all_to_all(), real_clock(), std::move(loop));
  return {};
}

Status EngineHost::await_end(Duration others, Duration steps) {
  if (group_ != nullptr && !loop_->failure()) {
    // Those who are not told to end at the same time have their experts taken away.
    const Status done = group_->await_done(others);
    if (!done) log_info("leaving the group: {}", done.error().message);
  }
  return loop_->await_idle(steps);
}

}  // namespace wideep::cmd
