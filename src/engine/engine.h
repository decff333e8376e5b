// The engine of one rank: it owns its sequences and their KV, and steps.
//
//   submit()/cancel()  any thread: put into a bounded inbox
//   step()             the engine thread: drain the inbox, schedule, forward, sample, report
//
// An engine outlives an epoch of its group: a step that fails at any layer leaves each sequence at
// its last committed token, and the next step may run with another AllToAll.
//
// Steps of a group. Step t runs the program that the wishes handed in at step t - 1 add up to, so
// that no step waits for an agreement: begin_step takes the wish for t + 1 and returns the program
// of t.
//   - A wish counts what the rank holds now; requests that arrive later fit in as far as there is
//     room. A rank brings at most program.tokens_max rows, whoever asked for that room.
//   - A rank without rows runs every layer with zero rows: others need its experts. has_work()
//     stays true on it for as long as the last program says that anyone has work.
//   - The first step of an epoch, and the first after a sleep, has no wishes to go by: all ranks
//     run the default program of the exchange (work for all, room for a first chunk).
//   - A program in which nobody has work is not run: step() returns at once and the group sleeps.
//     A rank that gets a request just calls step(); its begin_step wakes the others, whose control
//     threads call wake(), and that step is a first step.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "engine/request.h"
#include "ep/all_to_all.h"
#include "kv/kv_port.h"
#include "model/model.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace wideep::tokenizer {
class Tokenizer;
}

namespace wideep::engine {

struct EngineOptions {
  int64_t max_model_len = 0;             // 0: the model's
  int64_t max_num_seqs = 64;             // running at the same time
  int64_t max_num_batched_tokens = 512;  // token budget of a step
  int64_t block_size = 64;               // tokens of a KV block: 16, 32, … 512
  int64_t kv_cache_bytes = 0;            // 0: at most 4 GiB and a quarter of what is free
  int64_t engines_on_host = 1;           // that share what is free
  int64_t num_kv_blocks = 0;             // overrides kv_cache_bytes
  bool enable_prefix_caching = true;
  int64_t num_speculative_tokens = 0;  // 1: the model's draft layer guesses one token ahead
  bool adapt_speculation = false;      // guess only while it is measured to pay (draft_policy.h)
  // End of sequence besides what config.json and the tokenizer say: of generation_config.json.
  std::vector<TokenId> end_tokens;
  int64_t max_num_queued_reqs = 1024;  // beyond: kExhausted
  int64_t max_num_queued_tokens = 1 << 22;
  Duration queue_timeout{};  // waiting longer ends a request with a retryable error; 0: never

  // Hand-over of KV between ranks (kv/kv_transfer.h).
  bool produces_kv = false;  // requests may leave their KV here; the cache can be mapped by others
  bool consumes_kv = false;  // requests may bring a ticket
  bool recompute_failed_pulls = false;  // else a pull that fails ends its request with an error
  kv::LeaseOptions leases;              // blocks_max 0: three quarters of the cache
};

// A snapshot for metrics and balancing.
struct EngineStats {
  int64_t num_running = 0;
  int64_t num_waiting = 0;
  int64_t num_deferred = 0;   // of the waiting: for KV that is being filled, not for room
  double kv_cache_usage = 0;  // blocks in use by sequences / all blocks
  int64_t num_kv_blocks = 0;
  int64_t num_kv_blocks_free = 0;
  int64_t num_preemptions = 0;
  int64_t prefix_cache_queries = 0;  // tokens
  int64_t prefix_cache_hits = 0;
  int64_t external_cache_queries = 0;  // tokens looked for in other engines' caches, and found
  int64_t external_cache_hits = 0;
  int64_t prompt_tokens = 0;         // of requests that have their first token
  int64_t prompt_tokens_cached = 0;  // of them found in the prefix cache
  int64_t prompt_tokens_pulled = 0;  // of them taken over from another engine
  int64_t generated_tokens = 0;
  int64_t num_corrupted = 0;        // requests ended because their logits were no numbers
  int64_t num_drafts = 0;           // sequences that computed drafts, summed over steps
  int64_t num_draft_tokens = 0;     // guesses that were computed
  int64_t num_accepted_tokens = 0;  // of them right
  int64_t num_steps = 0;
  int64_t num_failed_steps = 0;
  int64_t expert_bytes_read = 0;  // of routed experts' weights, by all steps
  int64_t num_queued_tokens = 0;  // of waiting requests
  int64_t last_step_tokens = 0;   // rows of this rank
  int64_t last_step_prefill_tokens = 0;
  TimePoint last_step_start{};
  TimePoint last_step_end{};
};

// What can be wrong with options whatever the model: kInvalidArgument. create() looks too.
Status check_without_model(const EngineOptions& options);
// Likewise, with what such a model allows: to be asked before it is loaded.
Status check_options(const EngineOptions& options, const model::ModelConfig& config);

class Engine {
 public:
  // Borrows everything; the tokenizer may be null (then stop strings are refused and events carry
  // no text).
  static Result<std::unique_ptr<Engine>> create(model::Model& model,
                                                const tokenizer::Tokenizer* tokenizer,
                                                const Clock& clock,
                                                EngineOptions options);
  virtual ~Engine() = default;

  // Checks the request and queues it. kInvalidArgument: it can never run (message for the client);
  // kExhausted: the queue is full; kUnavailable: draining. On success `sink` gets events until one
  // has `finish`. Any thread.
  virtual Result<SequenceId> submit(Request request, EventSink sink) = 0;
  // The request ends with kAbort, unless it has ended; its KV is free after the next step. Any
  // thread.
  virtual void cancel(SequenceId sequence) = 0;
  // No new requests from now on; has_work() turns false when the rest is done. Any thread.
  virtual void drain() = 0;

  // One iteration. Only errors of the exchange (kPeerLost, kTimeout) come out; trouble with one
  // request ends that request. Engine thread.
  virtual Status step(ep::AllToAll& all_to_all) = 0;
  // Whether a step has something to do: anything running, waiting or in the inbox, here or, as far
  // as the last program told, on another rank. Any thread.
  virtual bool has_work() const = 0;
  // Blocks until has_work() or `timeout`. Engine thread.
  virtual void wait_for_work(Duration timeout) = 0;
  // Another rank has work: has_work() is true until the next step. Any thread.
  virtual void wake() = 0;
  // Called, on any thread, whenever has_work() may have turned true from outside: for an engine
  // thread that sleeps elsewhere than in wait_for_work(). Must not block.
  virtual void set_waker(std::function<void()> waker) = 0;
  // Ends every request with a retryable kError, e.g. when the group is lost for good. Engine
  // thread.
  virtual void fail_all(const Error& reason) = 0;

  // Requests whose last event has not come yet. Any thread.
  virtual int64_t num_unfinished() const = 0;
  virtual EngineStats stats() const = 0;             // any thread
  virtual const EngineOptions& options() const = 0;  // as resolved: no zeros left

  // For KV transfer; null: an engine without.
  virtual kv::KvPort* kv_port() { return nullptr; }
};

}  // namespace wideep::engine
