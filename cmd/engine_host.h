// One engine rank in this process: pool, model, tokenizer, engine and its loop, built in this order
// and torn down in reverse.
#pragma once

#include "base/options.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "engine/engine.h"
#include "engine/engine_loop.h"
#include "ep/all_to_all.h"
#include "model/load_model.h"
#include "tokenizer/tokenizer.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace wideep::cmd {

struct EngineHostOptions {
  std::string model_path;
  engine::EngineOptions engine;
  int64_t num_threads = 0;  // 0: every core this process may use
  std::string dtype = "auto";
  std::string quantization = "none";
  std::string dispatch_dtype = "auto";
  std::string combine_dtype = "auto";
  std::string isa = "auto";
  std::string speculative_config;        // JSON; "": none
  std::string speculation = "measured";  // or "always"
  std::string cache_dir;        // "": no cache of packed weights; "auto": $XDG_CACHE_HOME/wideep
  int64_t cache_max_bytes = 0;  // of all files in it; 0: half of the disk
  bool show_progress = true;

  // Declares MODEL and all flags (vLLM's names where vLLM has the thing), or only those that decide
  // the numbers.
  void declare(OptionSet& options);
  void declare_numbers(OptionSet& options);
};

class EngineHost {
  struct Private {};

 public:
  // Loads everything, showing progress. Errors of the model's files come back as they are.
  static Result<std::unique_ptr<EngineHost>> create(EngineHostOptions options);

  // For create() only.
  EngineHost(Private, EngineHostOptions options) : options_(std::move(options)) {}

  ~EngineHost();

  // Starts the engine's thread; `loop` tells what to do after steps and on failure.
  void start(engine::EngineLoopOptions loop);

  // Ends it; what is unfinished ends with an error.
  void stop() { loop_.reset(); }

  model::Model& model() { return *model_; }

  engine::Engine& engine() { return *engine_; }

  engine::EngineLoop& loop() { return *loop_; }

  // Of numbers, if the folder has no tokenizer.json.
  const tokenizer::Tokenizer& tokenizer() const { return *tokenizer_; }

  const EngineHostOptions& options() const { return options_; }

 private:
  Status load();

  EngineHostOptions options_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<model::Model> model_;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer_;
  std::unique_ptr<ep::AllToAll> all_to_all_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<engine::EngineLoop> loop_;
};

// What flags like --dtype, --quantization and --isa mean for loading. kInvalidArgument with the
// choices.
Result<model::LoadOptions> load_options(const EngineHostOptions& options);

}  // namespace wideep::cmd
