// How long a decision of the endpoint picker takes on one core: parsing the body, filtering,
// scoring, picking, remembering, with a typical prefill/decode configuration. One JSON line per
// (endpoints, prompt size).
//
// Half the endpoints prefill, half decode. Prompts are chats: a system part that all share, a
// history that the requests of a session share, a question of its own. A thousand sessions are
// spread over the endpoints before measuring begins; metrics of all endpoints are replaced every
// 50 ms, as the scraper does, outside of what is timed.
//
//   picker_bench [--seconds S]
#include "base/json.h"
#include "base/random.h"
#include "command_line.h"
#include "epp/endpoint_picker.h"
#include "epp/request_body.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::epp {
namespace {

constexpr int kSessions = 1000;
constexpr int kWarmUp = 3000;

constexpr const char* kConfig = R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: approx-prefix-cache-producer}
- {type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}
- {type: prefix-based-pd-decider, parameters: {nonCachedTokens: 16}}
- {type: disagg-profile-handler, parameters: {deciders: {prefill: prefix-based-pd-decider}}}
schedulingProfiles:
- name: prefill
  plugins:
  - {pluginRef: prefill-filter}
  - {pluginRef: prefix-cache-scorer, weight: 2}
  - {pluginRef: queue-scorer, weight: 1}
  - {pluginRef: max-score-picker}
- name: decode
  plugins:
  - {pluginRef: decode-filter}
  - {pluginRef: prefix-cache-scorer, weight: 2}
  - {pluginRef: queue-scorer, weight: 1}
  - {pluginRef: kv-cache-utilization-scorer, weight: 1}
  - {pluginRef: active-request-scorer, weight: 1}
  - {pluginRef: max-score-picker}
)";

std::string words(Random& random, size_t bytes) {
  std::string text;
  text.reserve(bytes + 16);
  while (text.size() < bytes)
    text += fmt::format("{:x} ", random.below(1 << 20));
  text.resize(bytes);
  return text;
}

// Chat bodies of one prompt size.
class Traffic {
 public:
  explicit Traffic(size_t prompt_bytes) : prompt_bytes_(prompt_bytes), random_(prompt_bytes) {
    system_ = words(random_, prompt_bytes / 4);
    for (int i = 0; i < kSessions; ++i)
      histories_.push_back(words(random_, prompt_bytes / 2));
  }

  std::string next() {
    Json messages{Json::Array{}};
    const auto add = [&](const char* role, std::string content) {
      Json message;
      message.set("role", role);
      message.set("content", std::move(content));
      messages.append(std::move(message));
    };
    add("system", system_);
    add("assistant", histories_[random_.below(histories_.size())]);
    add("user", words(random_, prompt_bytes_ - prompt_bytes_ / 4 - prompt_bytes_ / 2));
    Json body;
    body.set("model", "deepseek-r1");
    body.set("messages", std::move(messages));
    body.set("stream", true);
    return body.dump();
  }

 private:
  size_t prompt_bytes_;
  Random random_;
  std::string system_;
  std::vector<std::string> histories_;
};

std::vector<EndpointSpec> endpoints(int count) {
  std::vector<EndpointSpec> specs;
  for (int i = 0; i < count; ++i) {
    EndpointSpec spec{.name = fmt::format("default/rank-{}", i),
                      .address = {.host = fmt::format("10.0.{}.{}", i / 250, i % 250), .port = 1}};
    spec.labels[std::string(kRoleLabel)] = i % 2 == 0 ? "prefill" : "decode";
    spec.labels["llm-d.ai/inference-serving"] = "true";
    specs.push_back(std::move(spec));
  }
  return specs;
}

void scrape(EndpointPicker& picker, Random& random) {
  std::vector<std::pair<int32_t, EndpointMetrics>> updates;
  const auto snapshot = picker.snapshot();
  for (const Endpoint& endpoint : snapshot->endpoints) {
    updates.emplace_back(endpoint.id,
                         EndpointMetrics{.waiting = static_cast<double>(random.below(8)),
                                         .running = static_cast<double>(random.below(64)),
                                         .kv_cache_usage = random.uniform(),
                                         .block_size = 32,
                                         .num_blocks = 8192,
                                         .updated = real_clock().now()});
  }
  picker.set_metrics(updates);
}

// Nanoseconds of one decision; 0 if there was none.
int64_t decide(EndpointPicker& picker, const std::string& body, uint64_t random) {
  const TimePoint start = real_clock().now();
  auto parsed = parse_request_body(body);
  if (!parsed) return 0;
  parsed->pick.random = random;
  const auto decision = picker.pick(parsed->pick);
  const auto spent = real_clock().now() - start;
  return decision ? std::chrono::duration_cast<std::chrono::nanoseconds>(spent).count() : 0;
}

void measure(int num_endpoints, size_t prompt_bytes, std::chrono::milliseconds time) {
  EndpointPicker picker(*parse_picker_config(kConfig), real_clock());
  picker.set_endpoints(endpoints(num_endpoints));
  Random random(7);
  scrape(picker, random);
  Traffic traffic(prompt_bytes);
  for (int i = 0; i < kWarmUp; ++i)
    decide(picker, traffic.next(), random.bits());
  std::vector<int64_t> spent;
  int64_t sum = 0;
  TimePoint scraped = real_clock().now();
  const TimePoint end = scraped + time;
  while (real_clock().now() < end) {
    if (real_clock().now() - scraped > std::chrono::milliseconds(50)) {
      scrape(picker, random);
      scraped = real_clock().now();
    }
    spent.push_back(decide(picker, traffic.next(), random.bits()));
    sum += spent.back();
  }
  std::ranges::sort(spent);
  const auto us = [&](double share) {
    const auto i = static_cast<size_t>(share * static_cast<double>(spent.size() - 1));
    return static_cast<double>(spent[i]) / 1e3;
  };
  fmt::print(
      "{{\"what\": \"picker\", \"endpoints\": {}, \"prompt_bytes\": {}, \"decisions\": {}, "
      "\"decisions_per_s\": {:.0f}, \"us_p50\": {:.1f}, \"us_p99\": {:.1f}}}\n",
      num_endpoints, prompt_bytes, spent.size(),
      static_cast<double>(spent.size()) / (static_cast<double>(sum) / 1e9), us(0.5), us(0.99));
  std::fflush(stdout);
}

}  // namespace
}  // namespace wideep::epp

int main(int argc, char** argv) {
  double seconds = 2;
  wideep::bench::CommandLine command("picker_bench", "How long a decision of the picker takes.");
  command.add("--seconds", &seconds, {.group = "Run", .help = "Time for each line."});
  if (const auto status = command.parse(argc, argv)) return *status;
  const auto time = std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
  for (const int num_endpoints : {10, 100, 1000}) {
    for (const size_t kib : {1, 8, 32, 220})
      wideep::epp::measure(num_endpoints, kib * 1024, time);
  }
  return 0;
}
