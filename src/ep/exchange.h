// What the two sides of an exchange share: the parts they work with, and how they wait.
#pragma once

#include "base/thread_pool.h"
#include "ep/all_to_all.h"
#include "ep/control_words.h"
#include "ep/exchange_layout.h"
#include "ep/expert_load.h"
#include "ep/placement.h"
#include "ep/stream_choice.h"
#include "fabric/fabric.h"
#include "math/kernels.h"

#include <chrono>
#include <cstdint>
#include <string_view>

namespace wideep::ep {

// Which replica of an expert gets a row.
enum class ReplicaChoice {
  kSpread,   // in turn: what balance() assumes
  kNearest,  // on this rank, else in turn on this node, else in turn
};

struct ExchangeOptions {
  ExchangeShape shape;
  int64_t low_latency_tokens_max = 128;  // programs with room for more run high-throughput
  int64_t chunk_tokens = 64;             // high throughput: rows a source sends before it tells
  int64_t row_block = 64;                // high throughput: rows worth reading an expert for
  int64_t batch_rows_max = 4096;         // rows of one ExpertBatch
  ReplicaChoice replicas = ReplicaChoice::kSpread;
  Duration progress_deadline = std::chrono::seconds{60};  // or 20 x a step's average, if longer
  uint64_t config_hash = 0;  // whatever else must be equal on all ranks (NumericConfig, model)
  uint64_t first_seq = 1;    // tests start near the wrap
  // Of the cache that all ranks of this node are said to share: what fits may be written plainly.
  int64_t shared_cache_bytes = 0;
};

struct Exchange {
  fabric::Fabric& fabric;
  const Placement& placement;
  const math::Kernels& kernels;
  ThreadPool& pool;
  const ExchangeOptions& options;
  const ExchangeLayout& layout;
  ExpertLoad& load;
  StreamChoice& choice;

  RankId rank() const { return fabric.rank(); }

  int32_t num_ranks() const { return fabric.shape().num_ranks(); }

  // Whether an exchange in which this rank writes (and, as a guess, the others of its node too) so
  // many results stays in their common cache. See docs/decisions/0015.
  bool stays_in_cache(int64_t num_results) const;
};

// Blocks until has_come(rank) is true for every rank, asked again and again in rank order. An error
// it returns ends the wait, with the rank named. `op` is for the message: "combine of layer 3".
using HasCome = FunctionRef<Result<bool>(RankId)>;
using Operation = FunctionRef<std::string()>;
Status await_all(fabric::Fabric& fabric, Operation op, TimePoint deadline, HasCome has_come);

// "rank 2: ..." before the error of what rank 2 sent.
std::unexpected<Error> blame(RankId rank, Error error);

}  // namespace wideep::ep
