// One engine rank in this process: pool, exchange, model, tokenizer, engine and its loop, built in
// this order and torn down in reverse. A rank of a group meets the others before it loads, so that
// a mismatch shows at once and nobody loads for a group that has lost a rank.
#pragma once

#include "base/options.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "cmd/rank_group.h"
#include "engine/engine.h"
#include "engine/engine_loop.h"
#include "ep/local_all_to_all.h"
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
  std::string mla_prompt_form = "absorbed";  // or "expanded"
  std::string isa = "auto";
  std::string speculative_config;        // JSON; "": none
  std::string speculation = "measured";  // or "always"
  std::string cache_dir;        // "": no cache of packed weights; "auto": $XDG_CACHE_HOME/wideep
  int64_t cache_max_bytes = 0;  // of all files in it; 0: half of the disk
  bool show_progress = true;
  RankOptions rank;  // which rank of which group; by default the only one

  // Declares MODEL and all flags (vLLM's names where vLLM has the thing), or only those that decide
  // the numbers.
  void declare(OptionSet& options);
  void declare_numbers(OptionSet& options);
};

class EngineHost {
  struct Private {};

 public:
  // Loads everything, showing progress. Errors of the model's files come back as they are;
  // kPeerLost and kTimeout: the group has not come together.
  static Result<std::unique_ptr<EngineHost>> create(EngineHostOptions options);

  // For create() only.
  EngineHost(Private, EngineHostOptions options) : options_(std::move(options)) {}

  ~EngineHost();

  // Starts the engine's thread; `loop` tells what to do after steps and on failure. In a group
  // first waits until all ranks have loaded: see ep::Group::await_ready.
  Status start(engine::EngineLoopOptions loop);

  // This rank has no requests any more and will get none: waits for the others of its group to say
  // the same, and until none of them steps. Each of the two waits ends at its timeout, or with the
  // group.
  Status await_end(Duration others, Duration steps);

  // Ends it; what is unfinished ends with an error.
  void stop() { loop_.reset(); }

  model::Model& model() { return *model_; }

  const model::Model& model() const { return *model_; }

  engine::Engine& engine() { return *engine_; }

  engine::EngineLoop& loop() { return *loop_; }

  // Null if this rank holds all experts itself.
  const ep::Group* group() const { return group_.get(); }

  // Null if there is a group.
  const ep::LocalAllToAll* local() const { return local_.get(); }

  // Of numbers, if the folder has no tokenizer.json.
  const tokenizer::Tokenizer& tokenizer() const { return *tokenizer_; }

  const EngineHostOptions& options() const { return options_; }

  // Bytes of a row on its way to an expert.
  int64_t dispatch_row_bytes() const;

 private:
  Status load();
  Status make_pool();
  Status load_model(const model::Checkpoint& checkpoint, model::LoadOptions load);
  Status load_tokenizer();
  void make_local_exchange(const model::LoadOptions& load);
  ep::AllToAll& all_to_all();

  EngineHostOptions options_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<ep::Group> group_;  // one of the two
  std::unique_ptr<ep::LocalAllToAll> local_;
  std::unique_ptr<model::Model> model_;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<engine::EngineLoop> loop_;
};

// What flags like --dtype, --quantization and --isa mean for loading. kInvalidArgument with the
// choices.
Result<model::LoadOptions> load_options(const EngineHostOptions& options);

// Before anything is loaded: kInvalidArgument for flags that no model could be served with.
Status check_flags(const EngineHostOptions& options);

}  // namespace wideep::cmd
