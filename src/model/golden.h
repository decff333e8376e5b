// Checks a model against a folder of expected values (tests/golden/data/README.md has the form):
// one-shot, in chunks, through the cache, several prompts in one batch, with a shared prefix. It is
// how a build, a machine or a cluster is proved right.
//
// In the f32 path every tensor must be within the folder's tolerance and ids must be equal.
// Narrower numbers are judged teacher-forced, by the median of the logits' differences and by how
// often the most likely token is the expected one.
#pragma once

#include "base/result.h"
#include "base/thread_pool.h"
#include "ep/all_to_all.h"
#include "model/load_model.h"

#include <cstdint>
#include <string>
#include <vector>

namespace wideep::model {

struct GoldenOptions {
  double tolerance = 1e-4;  // of the largest expected value of a tensor; log-probabilities: as is
  int64_t chunk = 7;
  // Narrow numbers. The median |logit - expected|, as a share of the logits' root mean square; how
  // many positions must have the expected argmax, or one that is ahead of it by no more than so
  // small a share: what rounding may decide.
  double median_max = 0.04;
  double argmax_rate_min = 0.93;
  double near_tie = 0.1;
};

struct GoldenItem {
  std::string name;   // "one-shot prompt1.hidden.3"
  double difference;  // largest, relative to the largest expected value; median if statistical
  double limit;
  int64_t num_values = 0;
  int64_t num_mismatches = 0;  // ids that differ

  bool passed() const { return difference <= limit && num_mismatches == 0; }
};

struct GoldenReport {
  std::vector<GoldenItem> items;
  // Teacher-forced: tokens whose argmax is the expected one.
  int64_t num_argmax = 0;
  int64_t num_argmax_equal = 0;
  int64_t num_near_ties = 0;  // of the others: decided by rounding

  bool passed() const;
  // "name difference limit" lines, worst first; a last line sums up.
  std::string describe() const;
};

// `folder` has expected/golden.safetensors; `model` was loaded from it with blocks of
// `block_tokens`. In a group one rank calls this and then follow_golden (golden_run.h), the others
// follow_golden.
Result<GoldenReport> check_golden(const std::string& folder,
                                  Model& model,
                                  ep::AllToAll& all_to_all,
                                  int64_t block_tokens,
                                  const GoldenOptions& options = {});

// The same with a model of its own on one rank.
Result<GoldenReport> check_golden(const std::string& folder,
                                  ThreadPool& pool,
                                  const LoadOptions& load,
                                  const GoldenOptions& options = {});

}  // namespace wideep::model
