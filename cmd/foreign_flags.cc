#include "cmd/foreign_flags.h"

namespace wideep::cmd {
namespace {

constexpr const char* kOneBatch = "one batch is in flight at a time";
constexpr const char* kNothingCompiled = "there are no graphs and nothing is compiled";
constexpr const char* kNoTls = "TLS; put a proxy in front";

void accept_what_is_met(OptionSet& options) {
  options.accept("--enforce-eager", kNothingCompiled);
  options.accept("--enable-ep-weight-filter", "a rank reads the experts that it holds, no others");
  options.accept("--enable-chunked-prefill", "long prompts always come in chunks");
  options.accept("--enable-prompt-tokens-details", "usage always has them");
  options.accept("--trust-remote-code", "code of a checkpoint is never run");
  options.accept("--disable-uvicorn-access-log", "requests are not logged");
  options.accept("--disable-log-requests", "requests are not logged");
  options.accept("--disable-log-stats", "statistics are not logged; see /metrics");
  options.refuse("--all2all-backend",
                 "the exchange is wideep's own, and takes its mode step by step",
                 {"allgather_reducescatter", "naive", "pplx", "deepep_low_latency",
                  "deepep_high_throughput", "deepep_v2", "flashinfer_all2allv"});
  options.refuse("--moe-backend", "kernels are chosen by --isa", {"auto", "deep_gemm"});
  options.refuse("--distributed-executor-backend", "ranks are processes", {"mp"});
  options.refuse("--tensor-parallel-size", "attention is data parallel; run more ranks", {"1"});
  options.refuse("-tp", "attention is data parallel; run more ranks", {"1"});
  options.refuse("--pipeline-parallel-size", "there are no pipeline stages", {"1"});
  options.refuse("-pp", "there are no pipeline stages", {"1"});
  options.refuse("--api-server-count", "one process answers", {"1"});
  options.refuse("--kv-cache-dtype", "the cache has the type of the arithmetic", {"auto"});
  options.refuse("--load-format", "checkpoints are safetensors", {"auto", "safetensors"});
  options.refuse("--reasoning-parser", "thinking is split for every model; see --split-reasoning",
                 {"deepseek_r1", "qwen3"});
}

void refuse_what_is_missing(OptionSet& options) {
  options.refuse("--enable-eplb", "experts stay where they are; see --expert-load-file");
  options.refuse("--enable-dbo", kOneBatch);
  options.refuse("--dbo-decode-token-threshold", kOneBatch);
  options.refuse("--dbo-prefill-token-threshold", kOneBatch);
  options.refuse("--async-scheduling", kOneBatch);
  options.refuse("--compilation-config", kNothingCompiled);
  options.refuse("--enable-elastic-ep", "a group keeps its size");
  options.refuse("--gpu-memory-utilization", "there is no GPU; see --kv-cache-memory-bytes");
  options.refuse("--swap-space", "a sequence that loses its place is computed again");
  options.refuse("--kv-events-config", "events of the KV cache are not published");
  options.refuse("--seed", "a request's seed counts; without one it is drawn");
  options.refuse("--enable-lora", "LoRA adapters");
  options.refuse("--tool-call-parser", "tool calls");
  options.refuse("--enable-auto-tool-choice", "tool calls");
  options.refuse("--model", "the model is an argument: wideep serve MODEL");
  options.refuse("-m", "the model is an argument: wideep serve MODEL");
  options.refuse("--tokenizer", "the tokenizer is the model's own");
  options.refuse("--ssl-keyfile", kNoTls);
  options.refuse("--ssl-certfile", kNoTls);
}

}  // namespace

void declare_foreign_flags(OptionSet& options) {
  accept_what_is_met(options);
  refuse_what_is_missing(options);
}

}  // namespace wideep::cmd
