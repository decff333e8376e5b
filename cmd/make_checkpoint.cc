// `wideep make-checkpoint`: a random checkpoint of a given shape, to measure speed without
// downloads.
#include "model/make_checkpoint.h"

#include "cmd/progress.h"
#include "cmd/verb.h"

#include <fmt/format.h>

namespace wideep::cmd {
namespace {

class MakeCheckpoint final : public Verb {
 public:
  MakeCheckpoint()
      : Verb("make-checkpoint",
             "Write a random checkpoint of a given shape, to measure speed with.") {
    options.add_positional("SHAPE", &checkpoint_.shape,
                           fmt::format("One of {}, or the path of a config.json.",
                                       fmt::join(model::checkpoint_shapes(), ", ")),
                           true);
    options.add_positional("DIR", &checkpoint_.folder, "Where to write it.", true);
    options.add("--seed", &seed_, {.group = "Checkpoint", .help = "Same seed, same bytes."});
    options.add("--fp8", &checkpoint_.fp8,
                {.group = "Checkpoint", .help = "Linear weights in FP8 with block scales."});
    options.add("--layers", &checkpoint_.num_layers,
                {.group = "Checkpoint", .help = "Number of layers; 0: the shape's."});
    options.add("--experts", &checkpoint_.num_experts,
                {.group = "Checkpoint", .help = "Number of experts; 0: the shape's."});
  }

  int run() override {
    checkpoint_.seed = static_cast<uint64_t>(seed_);
    Progress progress("writing " + checkpoint_.folder, "B");
    checkpoint_.progress = [&](int64_t done, int64_t total) { progress.update(done, total); };
    const Status made = model::make_checkpoint(checkpoint_);
    return made ? kExitOk : fail(made.error());
  }

 private:
  model::MakeCheckpointOptions checkpoint_;
  int64_t seed_ = 1;
};

}  // namespace

std::unique_ptr<Verb> make_make_checkpoint() {
  return std::make_unique<MakeCheckpoint>();
}

}  // namespace wideep::cmd
