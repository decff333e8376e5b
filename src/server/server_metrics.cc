#include "server/server_metrics.h"

#include "server/choice.h"

#include <array>
#include <utility>
#include <vector>

namespace wideep::server {
namespace {

constexpr std::array kTtftBounds = {.001, .005, .01, .02, .04, .06,  .08,  .1,
                                    .25,  .5,   .75, 1.,  1.5, 2.,   2.5,  5.,
                                    7.5,  10.,  20., 40., 80., 160., 640., 2560.};
constexpr std::array kTokenBounds = {.01, .025, .05, .075, .1,  .15, .2,  .3,  .4, .5,
                                     .75, 1.,   2.5, 5.,   7.5, 10., 20., 40., 80.};
constexpr std::array kRequestBounds = {.3,  .5,  .8,  1.,  1.5,  2.,   2.5,  5.,   10.,   15.,  20.,
                                       30., 40., 50., 60., 120., 240., 480., 960., 1920., 7680.};
constexpr std::array kStepTokenBounds = {1.,   8.,    16.,   32.,   64.,   128.,  256.,
                                         512., 1024., 2048., 4096., 8192., 16384.};
constexpr std::array kStepBounds = {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1., 2.5, 10.};
constexpr std::array kChoiceBounds = {1., 2., 5., 10., 20.};
constexpr std::array kHttpBounds = {.005, .01, .025, .05, .075, .1,  .25,
                                    .5,   .75, 1.,   2.5, 5.,   7.5, 10.};

// 1 2 5 10 20 50 ... up to the longest context.
std::vector<double> one_two_five(int64_t max) {
  std::vector<double> bounds;
  for (int64_t decade = 1; decade <= max; decade *= 10) {
    for (const int64_t factor : {1, 2, 5}) {
      if (decade * factor <= max) bounds.push_back(static_cast<double>(decade * factor));
    }
  }
  return bounds;
}

double seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

MetricLabels with(MetricLabels labels, std::string_view name, std::string_view value) {
  labels.emplace_back(name, value);
  return labels;
}

}  // namespace

// Everything of one engine, in the order in which pickers look for it.
struct ServerMetrics::Series {
  Series(MetricsRegistry& metrics, const MetricLabels& with_labels, int64_t max_model_len)
      : lengths(one_two_five(max_model_len)), registry(metrics), labels(with_labels) {}

  using Label = std::pair<std::string_view, std::string_view>;

  Gauge& gauge(std::string_view name, std::string_view help) {
    return registry.gauge(name, help, labels);
  }

  Gauge& gauge(std::string_view name, std::string_view help, Label label) {
    return registry.gauge(name, help, with(labels, label.first, label.second));
  }

  Counter& counter(std::string_view name, std::string_view help) {
    return registry.counter(name, help, labels);
  }

  Counter& counter(std::string_view name, std::string_view help, Label label) {
    return registry.counter(name, help, with(labels, label.first, label.second));
  }

  Gauge& waiting_for(std::string_view reason) {
    return gauge("vllm:num_requests_waiting_by_reason", "Waiting requests by what they wait for.",
                 {"reason", reason});
  }

  Gauge& sleep_state(std::string_view state) {
    return gauge("vllm:engine_sleep_state", "1 for the state that the engine is in.",
                 {"sleep_state", state});
  }

  Counter& prompt_tokens_from(std::string_view source) {
    return counter("vllm:prompt_tokens_by_source_total",
                   "Prefill tokens by where their KV comes from.", {"source", source});
  }

  Histogram& histogram(std::string_view name,
                       std::string_view help,
                       std::span<const double> bounds) {
    return registry.histogram(name, help, bounds, labels);
  }

  const std::vector<double> lengths;
  MetricsRegistry& registry;
  const MetricLabels& labels;
  Gauge& running = gauge("vllm:num_requests_running", "Requests in execution.");
  Gauge& waiting = gauge("vllm:num_requests_waiting", "Requests waiting to be processed.");
  Gauge& waiting_for_room = waiting_for("capacity");
  Gauge& waiting_for_kv = waiting_for("deferred");
  Gauge& kv_usage = gauge("vllm:kv_cache_usage_perc", "KV-cache usage; 1 means 100 percent.");
  Counter& prefix_queries =
      counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.");
  Counter& prefix_hits =
      counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.");
  Counter& external_queries = counter("vllm:external_prefix_cache_queries_total",
                                      "Prompt tokens looked up in other engines' caches.");
  Counter& external_hits = counter("vllm:external_prefix_cache_hits_total",
                                   "Prompt tokens found in other engines' caches.");
  // Of vLLM's dashboards: models of text alone have none.
  Counter& image_queries = counter("vllm:mm_cache_queries_total", "Multi-modal cache: look-ups.");
  Counter& image_hits = counter("vllm:mm_cache_hits_total", "Multi-modal cache: hits.");
  Counter& preemptions = counter("vllm:num_preemptions_total", "Preemptions by the scheduler.");
  Counter& prompt_tokens = counter("vllm:prompt_tokens_total", "Prefill tokens processed.");
  Counter& prompt_tokens_cached =
      counter("vllm:prompt_tokens_cached_total", "Prompt tokens whose KV was in a cache.");
  Counter& prompt_computed = prompt_tokens_from("local_compute");
  Counter& prompt_cached = prompt_tokens_from("local_cache_hit");
  Counter& prompt_pulled = prompt_tokens_from("external_kv_transfer");
  Counter& generation_tokens = counter("vllm:generation_tokens_total", "Tokens generated.");
  Counter& corrupted = counter("vllm:corrupted_requests_total",
                               "Requests ended because their logits were no numbers.");
  Histogram& step_tokens =
      histogram("vllm:iteration_tokens_total", "Tokens per engine step.", kStepTokenBounds);
  Histogram& prompt_lengths =
      histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", lengths);
  Histogram& generation_lengths =
      histogram("vllm:request_generation_tokens", "Generated tokens of a request.", lengths);
  Histogram& max_generation_lengths =
      histogram("vllm:request_max_num_generation_tokens",
                "Longest generation among the choices of a request.",
                lengths);
  Histogram& computed_lengths = histogram("vllm:request_prefill_kv_computed_tokens",
                                          "Prompt tokens of a request whose KV was computed.",
                                          lengths);
  Histogram& params_n = histogram("vllm:request_params_n", "The request's n.", kChoiceBounds);
  Histogram& params_max_tokens =
      histogram("vllm:request_params_max_tokens", "The request's max_tokens.", lengths);
  Histogram& time_to_first =
      histogram("vllm:time_to_first_token_seconds", "Time to first token in seconds.", kTtftBounds);
  Histogram& inter_token = histogram(
      "vllm:inter_token_latency_seconds", "Time between tokens in seconds.", kTokenBounds);
  Histogram& per_output_token_old = histogram("vllm:time_per_output_token_seconds",
                                              "The old name of inter_token_latency_seconds.",
                                              kTokenBounds);
  Histogram& per_output_token = histogram("vllm:request_time_per_output_token_seconds",
                                          "Mean time per output token of a request.",
                                          kTokenBounds);
  Histogram& e2e = histogram(
      "vllm:e2e_request_latency_seconds", "End-to-end request latency in seconds.", kRequestBounds);
  Histogram& queue_time =
      histogram("vllm:request_queue_time_seconds", "Time in the queue.", kRequestBounds);
  Histogram& inference_time = histogram("vllm:request_inference_time_seconds",
                                        "Time from first scheduling to the end.",
                                        kRequestBounds);
  Histogram& prefill_time =
      histogram("vllm:request_prefill_time_seconds", "Time in prefill.", kRequestBounds);
  Histogram& decode_time =
      histogram("vllm:request_decode_time_seconds", "Time in decode.", kRequestBounds);
  Counter& drafts =
      counter("vllm:spec_decode_num_drafts_total", "Steps of sequences with drafted tokens.");
  Counter& draft_tokens = counter("vllm:spec_decode_num_draft_tokens_total", "Tokens drafted.");
  Counter& accepted_tokens =
      counter("vllm:spec_decode_num_accepted_tokens_total", "Drafted tokens that were right.");
  Counter& accepted_first = counter("vllm:spec_decode_num_accepted_tokens_per_pos_total",
                                    "Drafted tokens that were right, by position.",
                                    {"position", "0"});
  Counter& steps = counter("wideep:steps_total", "Steps of the engine.");
  Counter& failed_steps = counter("wideep:failed_steps_total", "Steps that failed as a whole.");
  Counter& expert_bytes_read = counter("wideep:expert_bytes_read_total",
                                       "Bytes of experts' weights that the steps have read.");
  Histogram& step_seconds =
      histogram("wideep:step_seconds", "Time of an engine step in seconds.", kStepBounds);
  Gauge& queued_tokens = gauge("wideep:queued_tokens", "Tokens of waiting requests.");
  Gauge& blocks_free = gauge("wideep:kv_blocks_free", "KV blocks that no sequence uses.");
};

ServerMetrics::ServerMetrics(std::string_view model_name,
                             std::string_view engine_label,
                             const engine::EngineOptions& options)
    : labels_{{"model_name", std::string(model_name)}, {"engine", std::string(engine_label)}} {
  series_ = std::make_unique<Series>(registry_, labels_, options.max_model_len);
  MetricLabels cache = labels_;
  cache.emplace_back("block_size", std::to_string(options.block_size));
  cache.emplace_back("num_gpu_blocks", std::to_string(options.num_kv_blocks));
  cache.emplace_back("enable_prefix_caching", options.enable_prefix_caching ? "True" : "False");
  registry_.gauge("vllm:cache_config_info", "The KV cache's configuration.", cache).set(1);
  const MetricLabels lora{
      {"max_lora", "0"}, {"running_lora_adapters", ""}, {"waiting_lora_adapters", ""}};
  registry_.gauge("vllm:lora_requests_info", "Adapters; there are none.", lora).set(0);
  series_->sleep_state("awake").set(1);
  for (const std::string_view state : {"weights_offloaded", "discard_all"})
    series_->sleep_state(state).set(0);
  for (const std::string_view reason : {"stop", "length", "abort", "error"}) {
    registry_.counter("vllm:request_success_total", "Finished requests.",
                      with(labels_, "finished_reason", reason));
  }
}

ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::on_tokens(TokenTimes& times, int64_t num_tokens, TimePoint now) {
  if (num_tokens == 0) return;
  if (times.num_tokens == 0) {
    series_->time_to_first.observe(seconds(now - times.arrival));
  } else {
    series_->inter_token.observe(seconds(now - times.last_event));
    series_->per_output_token_old.observe(seconds(now - times.last_event));
  }
  times.num_tokens += num_tokens;
  times.last_event = now;
}

void ServerMetrics::on_finished(const TokenTimes& times, const Finished& finished, TimePoint now) {
  registry_
      .counter("vllm:request_success_total", "Finished requests.",
               with(labels_, "finished_reason", finish_name(finished.reason)))
      .add();
  const engine::RequestUsage& usage = finished.usage;
  series_->prompt_lengths.observe(static_cast<double>(usage.prompt_tokens));
  series_->generation_lengths.observe(static_cast<double>(usage.generated_tokens));
  series_->max_generation_lengths.observe(static_cast<double>(usage.generated_tokens));
  series_->computed_lengths.observe(static_cast<double>(usage.prompt_tokens - usage.cached_tokens));
  series_->params_n.observe(static_cast<double>(finished.n));
  series_->params_max_tokens.observe(static_cast<double>(finished.max_tokens));
  series_->e2e.observe(seconds(now - times.arrival));
  const engine::RequestTiming& timing = finished.timing;
  if (timing.scheduled == TimePoint{}) return;
  series_->queue_time.observe(seconds(timing.scheduled - timing.queued));
  if (timing.first_token == TimePoint{}) return;
  series_->prefill_time.observe(seconds(timing.first_token - timing.scheduled));
  series_->decode_time.observe(seconds(timing.last_token - timing.first_token));
  series_->inference_time.observe(seconds(timing.last_token - timing.scheduled));
  if (usage.generated_tokens > 1) {
    series_->per_output_token.observe(seconds(timing.last_token - timing.first_token) /
                                      static_cast<double>(usage.generated_tokens - 1));
  }
}

void ServerMetrics::on_step(const engine::EngineStats& stats) {
  series_->step_tokens.observe(static_cast<double>(stats.last_step_tokens));
  series_->step_seconds.observe(seconds(stats.last_step_end - stats.last_step_start));
}

void ServerMetrics::on_rejected(std::string_view reason) {
  registry_
      .counter("vllm:admission_rejections_total", "Requests refused at the door.",
               with(labels_, "reason", reason))
      .add();
}

void ServerMetrics::on_answered(const http::AccessRecord& record) {
  const std::string_view handler = record.route.empty() ? "none" : record.route;
  // Methods are the client's words: those we do not route are one.
  const bool is_known =
      record.method == "GET" || record.method == "POST" || record.method == "HEAD";
  const MetricLabels labels{{"handler", std::string(handler)},
                            {"method", is_known ? std::string(record.method) : "other"},
                            {"status", std::to_string(record.status)}};
  registry_.counter("http_requests_total", "Requests answered.", labels).add();
  registry_
      .histogram("http_request_duration_seconds", "Time from a request's first byte to its end.",
                 kHttpBounds, {labels[0], labels[1]})
      .observe(seconds(record.duration));
}

std::string ServerMetrics::render(const engine::EngineStats& stats) {
  const std::scoped_lock lock(mutex_);
  update(stats);
  text_.clear();
  registry_.render(text_);
  return text_;
}

void ServerMetrics::update(const engine::EngineStats& stats) {
  const auto grow = [](Counter& counter, int64_t before, int64_t now) {
    if (now > before) counter.add(static_cast<uint64_t>(now - before));
  };
  series_->running.set(static_cast<double>(stats.num_running));
  series_->waiting.set(static_cast<double>(stats.num_waiting));
  series_->waiting_for_kv.set(static_cast<double>(stats.num_deferred));
  series_->waiting_for_room.set(static_cast<double>(stats.num_waiting - stats.num_deferred));
  series_->kv_usage.set(stats.kv_cache_usage);
  series_->queued_tokens.set(static_cast<double>(stats.num_queued_tokens));
  series_->blocks_free.set(static_cast<double>(stats.num_kv_blocks_free));
  grow(series_->prefix_queries, last_.prefix_cache_queries, stats.prefix_cache_queries);
  grow(series_->prefix_hits, last_.prefix_cache_hits, stats.prefix_cache_hits);
  grow(series_->external_queries, last_.external_cache_queries, stats.external_cache_queries);
  grow(series_->external_hits, last_.external_cache_hits, stats.external_cache_hits);
  grow(series_->preemptions, last_.num_preemptions, stats.num_preemptions);
  grow(series_->prompt_tokens, last_.prompt_tokens, stats.prompt_tokens);
  const auto reused = [](const engine::EngineStats& s) {
    return s.prompt_tokens_cached + s.prompt_tokens_pulled;
  };
  grow(series_->prompt_tokens_cached, reused(last_), reused(stats));
  grow(series_->prompt_computed, last_.prompt_tokens - reused(last_),
       stats.prompt_tokens - reused(stats));
  grow(series_->prompt_cached, last_.prompt_tokens_cached, stats.prompt_tokens_cached);
  grow(series_->prompt_pulled, last_.prompt_tokens_pulled, stats.prompt_tokens_pulled);
  grow(series_->generation_tokens, last_.generated_tokens, stats.generated_tokens);
  grow(series_->corrupted, last_.num_corrupted, stats.num_corrupted);
  grow(series_->drafts, last_.num_drafts, stats.num_drafts);
  grow(series_->draft_tokens, last_.num_draft_tokens, stats.num_draft_tokens);
  grow(series_->accepted_tokens, last_.num_accepted_tokens, stats.num_accepted_tokens);
  grow(series_->accepted_first, last_.num_accepted_tokens, stats.num_accepted_tokens);
  grow(series_->steps, last_.num_steps, stats.num_steps);
  grow(series_->failed_steps, last_.num_failed_steps, stats.num_failed_steps);
  grow(series_->expert_bytes_read, last_.expert_bytes_read, stats.expert_bytes_read);
  last_ = stats;
}

}  // namespace wideep::server
