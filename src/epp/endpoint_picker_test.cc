#include "epp/endpoint_picker.h"

#include "base/hash.h"
#include "epp/filters.h"
#include "epp/pickers.h"
#include "epp/scorers.h"

#include <gtest/gtest.h>

namespace wideep::epp {
namespace {

constexpr const char* kDisagg = R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: approx-prefix-cache-producer
  parameters: {maxPrefixTokensToMatch: 16384, lruCapacityPerServer: 31250, autoTune: false}
- type: prefix-cache-scorer
- type: queue-scorer
- type: prefill-filter
- type: decode-filter
- type: max-score-picker
- type: prefix-based-pd-decider
  parameters: {nonCachedTokens: 16}
- type: disagg-profile-handler
  parameters: {deciders: {prefill: prefix-based-pd-decider}}
schedulingProfiles:
- name: prefill
  plugins:
  - {pluginRef: prefill-filter}
  - {pluginRef: max-score-picker}
  - {pluginRef: prefix-cache-scorer, weight: 2}
  - {pluginRef: queue-scorer, weight: 1}
- name: decode
  plugins:
  - {pluginRef: decode-filter}
  - {pluginRef: max-score-picker}
  - {pluginRef: prefix-cache-scorer, weight: 2}
  - {pluginRef: queue-scorer, weight: 1}
)";

EndpointSpec spec(const std::string& name, const std::string& role) {
  EndpointSpec result{.name = "default/" + name, .address = {.host = name, .port = 80}};
  if (!role.empty()) result.labels[std::string(kRoleLabel)] = role;
  return result;
}

Endpoint labelled(Labels labels) {
  return {.labels = std::make_shared<const Labels>(std::move(labels))};
}

PickerConfig config(const std::string& yaml) {
  auto parsed = parse_picker_config(yaml);
  EXPECT_TRUE(parsed) << parsed.error().message;
  return std::move(*parsed);
}

int32_t id_of(const EndpointPicker& picker, const std::string& host) {
  for (const Endpoint& e : picker.snapshot()->endpoints) {
    if (e.address.host == host) return e.id;
  }
  return -1;
}

void set_metrics(EndpointPicker& picker, const std::string& host, EndpointMetrics metrics) {
  const std::pair<int32_t, EndpointMetrics> update = {id_of(picker, host), metrics};
  picker.set_metrics(std::span(&update, 1));
}

PickRequest request(std::string prompt, uint64_t random = 1) {
  PickRequest result;
  result.model = "m";
  result.prompt = std::move(prompt);
  result.random = random;
  return result;
}

TEST(EndpointPicker, SendsALongNewPromptToAPrefillerAndAKnownOneNot) {
  EndpointPicker picker(config(kDisagg), real_clock());
  picker.set_endpoints({spec("p0", "prefill"), spec("d0", "decode"), spec("d1", "")});
  const std::string prompt(4000, 'x');
  const auto first = picker.pick(request(prompt));
  ASSERT_TRUE(first) << first.error().message;
  ASSERT_NE(first->prefill, nullptr);
  EXPECT_EQ(first->prefill->address.host, "p0");
  EXPECT_EQ(first->headers.at("x-prefiller-host-port"), "p0:80");
  const std::string decode = first->destinations.front().endpoint->address.host;
  EXPECT_NE(decode, "p0");

  const auto again = picker.pick(request(prompt, 99));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->destinations.front().endpoint->address.host, decode);
  EXPECT_EQ(again->prefill, nullptr);
}

TEST(EndpointPicker, PrefersTheShorterQueue) {
  EndpointPicker picker(config(kDisagg), real_clock());
  picker.set_endpoints({spec("d0", "decode"), spec("d1", "decode"), spec("d2", "decode")});
  set_metrics(picker, "d0", {.waiting = 4});
  set_metrics(picker, "d1", {.waiting = 1});
  set_metrics(picker, "d2", {.waiting = 2});
  const auto decision = picker.pick(request("hi"));
  ASSERT_TRUE(decision);
  EXPECT_EQ(decision->destinations.front().endpoint->address.host, "d1");
  EXPECT_DOUBLE_EQ(decision->destinations.front().score, 1.0);
}

TEST(EndpointPicker, Says503WhenNothingIsThereOrNothingIsLeft) {
  EndpointPicker picker(config(kDisagg), real_clock());
  EXPECT_EQ(picker.pick(request("x")).error().http_status, 503);
  picker.set_endpoints({spec("p0", "prefill")});
  EXPECT_EQ(picker.pick(request("x")).error().http_status, 503);
  picker.set_endpoints({spec("d0", "decode")});
  const std::vector<std::string> empty;
  EXPECT_EQ(picker.pick(request("x"), &empty).error().http_status, 503);
  const std::vector<std::string> subset = {"d0:80"};
  EXPECT_TRUE(picker.pick(request("x"), &subset));
}

TEST(EndpointPicker, ShedsOnlyNegativePrioritiesAndOnlyWhenSaturated) {
  EndpointPicker picker(
      config(std::string(kDisagg) + "objectives: [{name: batch, priority: -1}]\n"), real_clock());
  picker.set_endpoints({spec("d0", "decode")});
  const std::string batch = "batch";
  PickRequest shed = request("x");
  shed.header = [&](std::string_view name) {
    return name == "x-llm-d-inference-objective" ? &batch : nullptr;
  };
  EXPECT_EQ(picker.pick(shed).error().http_status, 429);  // no metrics yet: stale counts as full
  EXPECT_TRUE(picker.pick(request("x")));
  set_metrics(picker, "d0", {.waiting = 1, .updated = real_clock().now() + std::chrono::hours(1)});
  EXPECT_TRUE(picker.pick(shed));
}

TEST(EndpointPicker, KeepsCountersOfEndpointsThatStay) {
  EndpointPicker picker(config(kDisagg), real_clock());
  picker.set_endpoints({spec("d0", "decode")});
  picker.snapshot()->endpoints[0].load->active_requests = 3;
  picker.set_endpoints({spec("d1", "decode"), spec("d0", "decode")});
  EXPECT_EQ(picker.snapshot()->endpoints[1].load->active_requests, 3);
  EXPECT_NE(picker.snapshot()->endpoints[0].id, picker.snapshot()->endpoints[1].id);
}

TEST(Config, FillsInDefaultsAndSaysSo) {
  const PickerConfig empty = config("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n");
  ASSERT_EQ(empty.profiles.size(), 1U);
  EXPECT_EQ(empty.profiles[0].scorers.size(), 3U);
  EXPECT_FALSE(empty.notes.empty());
}

TEST(Config, RefusesWhatItDoesNotKnowByName) {
  const std::string head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
  const auto message = [&](const std::string& rest) {
    const auto parsed = parse_picker_config(head + rest);
    return parsed ? std::string("accepted") : parsed.error().message;
  };
  EXPECT_NE(message("pluginz: []\n").find("'pluginz'"), std::string::npos);
  EXPECT_NE(
      message("plugins: [{type: latency-scorer}]\n").find("'latency-scorer' is not implemented"),
      std::string::npos);
  EXPECT_NE(message("plugins: [{type: queue-scorer, parameters: {x: 1}}]\n")
                .find("unknown parameter 'x'"),
            std::string::npos);
  EXPECT_NE(message("plugins: [{type: load-aware-scorer, parameters: {threshold: high}}]\n")
                .find("threshold must be"),
            std::string::npos);
  EXPECT_NE(message("featureGates: [flowControl]\n").find("flowControl"), std::string::npos);
  EXPECT_NE(
      message("schedulingProfiles: [{name: a, plugins: [{pluginRef: nobody}]}]\n").find("'nobody'"),
      std::string::npos);
  EXPECT_NE(message("schedulingProfiles: [{name: a, plugins: []}, {name: b, plugins: []}]\n")
                .find("profile handler"),
            std::string::npos);
  EXPECT_NE(message("plugins: [{type: disagg-profile-handler}]\n").find("no profile 'decode'"),
            std::string::npos);
}

std::vector<double> scores(Scorer& scorer,
                           std::vector<EndpointMetrics> metrics,
                           std::vector<int64_t> active = {}) {
  auto snapshot = std::make_shared<Snapshot>();
  std::vector<const Endpoint*> candidates;
  for (size_t i = 0; i < metrics.size(); ++i) {
    Endpoint endpoint{.name = "default/e" + std::to_string(i),
                      .metrics = metrics[i],
                      .id = static_cast<int32_t>(i)};
    if (i < active.size()) endpoint.load->active_requests = active[i];
    snapshot->endpoints.push_back(endpoint);
  }
  for (const Endpoint& endpoint : snapshot->endpoints)
    candidates.push_back(&endpoint);
  const PickRequest none;
  PickContext context{.request = none, .snapshot = snapshot, .prefix = {}};
  return scorer.score(context, candidates);
}

TEST(Scorers, HaveUpstreamsFormulas) {
  SpreadScorer queue(&EndpointMetrics::waiting);
  EXPECT_EQ(scores(queue, {{.waiting = 0}, {.waiting = 5}, {.waiting = 10}}),
            (std::vector<double>{1, 0.5, 0}));
  EXPECT_EQ(scores(queue, {{.waiting = 7}, {.waiting = 7}}), (std::vector<double>{1, 1}));
  KvCacheScorer kv;
  EXPECT_EQ(scores(kv, {{.kv_cache_usage = 0.25}}), (std::vector<double>{0.75}));
  LoadAwareScorer load(128);
  EXPECT_EQ(scores(load, {{.waiting = 0}, {.waiting = 64}, {.waiting = 500}}),
            (std::vector<double>{0.5, 0.25, 0}));
  ActiveRequestScorer active(0, 1.0);
  EXPECT_EQ(scores(active, {{}, {}, {}}, {0, 2, 4}), (std::vector<double>{1, 0.5, 0}));
}

TEST(Scorers, OrderRanksByFourTimesWaitingPlusRunning) {
  std::vector<Endpoint> ranks(3);
  ranks[0].load->active_requests = 3;  // 2 run, 1 waits: 6
  ranks[1].load->active_requests = 2;
  const std::vector<const Endpoint*> candidates = {&ranks[0], &ranks[1], &ranks[2]};
  const PickRequest ignored = request("x");
  PickContext context{.request = ignored, .snapshot = nullptr, .prefix = {}};
  EXPECT_EQ(DataParallelScorer(2).score(context, candidates),
            (std::vector<double>{1.0 / 7, 1.0 / 3, 1}));
}

TEST(Filters, KeepTheRankThatTheHeaderNames) {
  std::vector<Endpoint> ranks = {labelled({{std::string(kRankLabel), "0"}}),
                                 labelled({{std::string(kRankLabel), "1"}}), Endpoint{}};
  const Candidates all = {&ranks[0], &ranks[1], &ranks[2]};
  PickRequest asked = request("x");
  PickContext context{.request = asked, .snapshot = nullptr, .prefix = {}};
  EXPECT_EQ(DataParallelRankFilter().filter(context, all), all);
  const std::string one = "1";
  asked.header = [&](std::string_view name) { return name == kRankHeader ? &one : nullptr; };
  EXPECT_EQ(DataParallelRankFilter().filter(context, all), (Candidates{&ranks[1]}));
}

TEST(PrefixIndex, HashesAsUpstreamDoes) {
  const PrefixIndex index({.auto_tune = false, .block_size_tokens = 2});
  PickRequest tokens = request("");
  tokens.cache_salt = "s";
  tokens.tokens = {1, 2, 3};
  int64_t block_tokens = 0;
  const auto hashes = index.hashes(tokens, &block_tokens);
  ASSERT_EQ(hashes.size(), 2U);
  const auto bytes_of = [](std::initializer_list<uint32_t> ids) {
    return std::vector<uint32_t>(ids);
  };
  const auto content = [&](std::initializer_list<uint32_t> ids) {
    const auto words = bytes_of(ids);
    return xxh64(std::as_bytes(std::span(words)));
  };
  const uint64_t seed = xxh64(std::string_view("ms"));
  const std::array<uint64_t, 2> first = {content({1, 2}), seed};
  EXPECT_EQ(hashes[0], xxh64(std::as_bytes(std::span(first))));
  const std::array<uint64_t, 2> second = {content({3}), hashes[0]};
  EXPECT_EQ(hashes[1], xxh64(std::as_bytes(std::span(second))));
  EXPECT_EQ(block_tokens, 2);
  static_cast<void>(index.hashes(request("text"), &block_tokens));
  EXPECT_EQ(block_tokens, 64);
}

TEST(PrefixIndex, ForgetsTheOldestBeyondItsCapacityAndDeadEndpoints) {
  PrefixIndex index({.auto_tune = false, .block_size_tokens = 1, .lru_capacity_per_server = 2});
  const Endpoint endpoint{.name = "e", .id = 7};
  const auto learn = [&](uint32_t token) {
    PickRequest one = request("");
    one.tokens = {token};
    PickContext context{.request = one, .snapshot = std::make_shared<Snapshot>(), .prefix = {}};
    index.on_routed(context, endpoint, "");
    PickContext fresh{.request = one, .snapshot = std::make_shared<Snapshot>(), .prefix = {}};
    return index.match(fresh).blocks_of(7) > 0;
  };
  EXPECT_TRUE(learn(1));
  EXPECT_TRUE(learn(2));
  EXPECT_TRUE(learn(3));
  EXPECT_EQ(index.size(), 2);
  const std::array<int32_t, 1> others = {8};
  index.keep_only(others);
  EXPECT_EQ(index.size(), 0);
}

TEST(Pickers, MaxScoreBreaksTiesByTheRequestsNumberAndOrdersFallbacks) {
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->endpoints = {Endpoint{.id = 0}, Endpoint{.id = 1}, Endpoint{.id = 2}};
  RankPicker picker(PickBy::kScore, 2);
  std::vector<int> hits(3);
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const PickRequest one = request("", seed);
    PickContext context{.request = one, .snapshot = snapshot, .prefix = {}};
    const auto picked = picker.pick(context, {{&snapshot->endpoints[0], 0.5},
                                              {&snapshot->endpoints[1], 1},
                                              {&snapshot->endpoints[2], 1}});
    ASSERT_EQ(picked.size(), 2U);
    ++hits[static_cast<size_t>(picked[0].endpoint->id)];
  }
  EXPECT_EQ(hits[0], 0);
  EXPECT_GT(hits[1], 100);
  EXPECT_GT(hits[2], 100);
}

TEST(Pickers, WeightedRandomFollowsTheScores) {
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->endpoints = {Endpoint{.id = 0}, Endpoint{.id = 1}, Endpoint{.id = 2}};
  RankPicker picker(PickBy::kWeightedChance, 1);
  std::vector<int> hits(3);
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    const PickRequest one = request("", seed);
    PickContext context{.request = one, .snapshot = snapshot, .prefix = {}};
    const auto picked = picker.pick(context, {{&snapshot->endpoints[0], 0},
                                              {&snapshot->endpoints[1], 0.25},
                                              {&snapshot->endpoints[2], 0.75}});
    ++hits[static_cast<size_t>(picked.at(0).endpoint->id)];
  }
  EXPECT_EQ(hits[0], 0);
  EXPECT_NEAR(hits[2] / 4000.0, 0.75, 0.03);
}

TEST(Pickers, ChanceIsUniformAndSoIsTheWeightedOneWhereAllScoresAreZero) {
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->endpoints = {Endpoint{.id = 0}, Endpoint{.id = 1}};
  for (const PickBy by : {PickBy::kChance, PickBy::kWeightedChance}) {
    const double score = by == PickBy::kChance ? 0.9 : 0;
    RankPicker picker(by, 2);
    std::vector<int> hits(2);
    for (uint64_t seed = 0; seed < 2000; ++seed) {
      const PickRequest one = request("", seed);
      PickContext context{.request = one, .snapshot = snapshot, .prefix = {}};
      const auto picked =
          picker.pick(context, {{&snapshot->endpoints[0], score}, {&snapshot->endpoints[1], 0}});
      ASSERT_EQ(picked.size(), 2U);
      ++hits[static_cast<size_t>(picked[0].endpoint->id)];
    }
    EXPECT_NEAR(hits[0] / 2000.0, 0.5, 0.05);
  }
}

TEST(LabelSelector, HasKubernetesRules) {
  LabelSelectorFilter filter({{"zone", "a"}},
                             {{"role", LabelExpression::Operator::kNotIn, {"prefill"}}});
  Snapshot snapshot;
  snapshot.endpoints = {labelled({{"zone", "a"}}), labelled({{"zone", "a"}, {"role", "prefill"}}),
                        labelled({{"zone", "b"}})};
  const PickRequest none;
  PickContext context{.request = none, .snapshot = nullptr, .prefix = {}};
  const Candidates kept = filter.filter(
      context, {&snapshot.endpoints[0], &snapshot.endpoints[1], &snapshot.endpoints[2]});
  ASSERT_EQ(kept.size(), 1U);
  EXPECT_EQ(kept[0], &snapshot.endpoints[0]);
}

}  // namespace
}  // namespace wideep::epp
