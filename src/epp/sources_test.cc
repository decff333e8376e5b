// Where the picker's knowledge comes from: request bodies, the endpoints file, metrics.
#include "base/file.h"
#include "base/test_folder.h"
#include "epp/discovery.h"
#include "epp/dns_discovery.h"
#include "epp/metrics_text.h"
#include "epp/request_body.h"
#include "epp/scraper.h"
#include "http/server.h"

#include <gtest/gtest.h>

#include <future>

namespace wideep::epp {
namespace {

PickerConfig default_config() {
  return *parse_picker_config("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n");
}

// Looks every 20 ms, for at most 60 s.
bool becomes_true(net::EventLoop& loop, const std::function<bool()>& condition) {
  const TimePoint give_up = real_clock().now() + std::chrono::seconds(60);
  while (!condition() && real_clock().now() < give_up) {
    std::promise<void> turned;
    loop.post_after(std::chrono::milliseconds(20), [&] { turned.set_value(); });
    turned.get_future().wait();
  }
  return condition();
}

TEST(RequestBody, ReadsEveryFormOfPrompt) {
  EXPECT_EQ(parse_request_body(R"({"model":"m","prompt":"abc"})")->pick.prompt, "abc");
  EXPECT_EQ(parse_request_body(R"({"model":"m","prompt":[1,2]})")->pick.tokens,
            (std::vector<uint32_t>{1, 2}));
  EXPECT_EQ(parse_request_body(R"({"model":"m","prompt":[[1,2]]})")->pick.tokens,
            (std::vector<uint32_t>{1, 2}));
  const auto chat = parse_request_body(R"({"model":"m","stream":true,"messages":[{"role":"user",)"
                                       R"("content":[{"type":"text","text":"hi"}]}]})");
  EXPECT_EQ(chat->pick.prompt, "user\nhi\n");
  EXPECT_TRUE(chat->stream);
  EXPECT_EQ(parse_request_body(R"({"prompt":"abc"})")->pick.model, "");
  EXPECT_FALSE(parse_request_body("{"));
  EXPECT_FALSE(parse_request_body("[]"));
}

TEST(RequestBody, HoldsNoMoreValuesThanAnEngineTakes) {
  std::string zeros;
  for (int64_t i = 0; i < kBodyJsonLimits.values_max; ++i)
    zeros += "0,";
  const auto bomb = parse_request_body(R"({"prompt":[)" + zeros + "0]}");
  ASSERT_FALSE(bomb);
  EXPECT_NE(bomb.error().message.find("values"), std::string::npos) << bomb.error().message;
}

TEST(MetricsText, ReadsVllmAndSglang) {
  EndpointMetrics metrics;
  ASSERT_TRUE(parse_metrics_text(
      "# HELP x\nvllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 3.0\n"
      "vllm:num_requests_running{engine=\"0\"} 2\nvllm:kv_cache_usage_perc{engine=\"0\"} 0.5\n"
      "vllm:cache_config_info{block_size=\"64\",num_gpu_blocks=\"100\"} 1.0\n",
      "", &metrics));
  EXPECT_EQ(metrics.waiting, 3);
  EXPECT_EQ(metrics.running, 2);
  EXPECT_EQ(metrics.kv_cache_usage, 0.5);
  EXPECT_EQ(metrics.block_size, 64);
  EXPECT_EQ(metrics.num_blocks, 100);
  ASSERT_TRUE(parse_metrics_text("sglang:num_queue_reqs 4\n", "sglang", &metrics));
  EXPECT_EQ(metrics.waiting, 4);
  EXPECT_FALSE(parse_metrics_text("other 1\nbroken{ 2\n{}\n", "", &metrics));
}

TEST(MetricsText, LeavesOutWhatCannotBe) {
  EndpointMetrics metrics;
  for (const char* value : {"NaN", "inf", "-1", "1e300"}) {
    const auto text = fmt::format(
        "vllm:num_requests_waiting 3\nvllm:num_requests_running {0}\n"
        "vllm:kv_cache_usage_perc {0}\n"
        "vllm:cache_config_info{{block_size=\"9223372036854775807\",num_gpu_blocks=\"-1\"}} 1\n",
        value);
    ASSERT_TRUE(parse_metrics_text(text, "", &metrics));
    EXPECT_EQ(metrics.waiting, 3);
    EXPECT_EQ(metrics.running, 0);
    EXPECT_EQ(metrics.kv_cache_usage, 0);
    EXPECT_EQ(metrics.block_size * metrics.num_blocks, 0);
  }
}

TEST(Endpoints, ReadUpstreamsFileFormAndNameMistakes) {
  const auto specs = parse_endpoints(
      "endpoints:\n- {name: d0, address: 10.0.0.1, port: \"8000\", labels: {llm-d.ai/role: "
      "decode}}\n");
  ASSERT_TRUE(specs) << specs.error().message;
  EXPECT_EQ(specs->front().name, "default/d0");
  EXPECT_EQ(specs->front().address.to_string(), "10.0.0.1:8000");
  for (const char* bad :
       {"x: 1", "endpoints: [{name: a}]", "endpoints: [{name: a, address: b, port: 0}]",
        "endpoints: [{name: a, address: b, port: 1, color: red}]",
        "endpoints: [{name: a, address: b, port: 1}, {name: a, address: c, port: 1}]"}) {
    EXPECT_FALSE(parse_endpoints(bad)) << bad;
  }
}

TEST(FileDiscovery, ReloadsAChangedFileAndKeepsTheOldSetOnAMistake) {
  const TestFolder folder;
  const std::string path = folder / "endpoints.yaml";
  ASSERT_TRUE(write_file(path, "endpoints: [{name: a, address: h, port: 1}]"));
  EndpointPicker picker(default_config(), real_clock());
  net::LoopThread thread;
  std::unique_ptr<FileDiscovery> discovery;
  thread.loop().run_and_wait([&] {
    discovery =
        std::make_unique<FileDiscovery>(thread.loop(), picker, FileDiscoveryOptions{path, true});
    EXPECT_TRUE(discovery->load());
  });
  EXPECT_EQ(picker.snapshot()->endpoints.size(), 1U);
  ASSERT_TRUE(write_file(
      path, "endpoints: [{name: a, address: h, port: 1}, {name: b, address: h, port: 2}]"));
  EXPECT_TRUE(
      becomes_true(thread.loop(), [&] { return picker.snapshot()->endpoints.size() == 2; }));
  ASSERT_TRUE(write_file(path, "endpoints: broken"));
  thread.loop().run_and_wait([&] { EXPECT_FALSE(discovery->load()); });
  EXPECT_EQ(picker.snapshot()->endpoints.size(), 2U);
  thread.loop().run_and_wait([&] { discovery.reset(); });
}

TEST(DnsDiscovery, ReadsNamesWithPortsAndRoles) {
  const auto one = parse_named_endpoints("decode=d.ns.svc:8000-8002,9000");
  ASSERT_TRUE(one) << one.error().message;
  EXPECT_EQ(one->host, "d.ns.svc");
  EXPECT_EQ(one->ports, (std::vector<uint16_t>{8000, 8001, 8002, 9000}));
  EXPECT_EQ(one->labels, (Labels{{std::string(kRoleLabel), "decode"}}));
  EXPECT_TRUE(parse_named_endpoints("d:1")->labels.empty());
  for (const char* bad : {"", "d", "d:", ":8000", "=d:1", "decode=:1", "d:0", "d:x", "d:65536",
                          "d:1,", "d:2-1", "d:1-", "d:1-65535"}) {
    EXPECT_FALSE(parse_named_endpoints(bad)) << bad;
  }
}

TEST(DnsDiscovery, MakesAnEndpointOfEachAddressAndPortBesideTheFixedOnes) {
  EndpointPicker picker(default_config(), real_clock());
  net::LoopThread thread;
  std::unique_ptr<DnsDiscovery> discovery;
  thread.loop().run_and_wait([&] {
    discovery = std::make_unique<DnsDiscovery>(
        thread.loop(), picker,
        std::vector<EndpointSpec>{{.name = "default/a", .address = {"10.0.0.1", 80, {}}}},
        std::vector<NamedEndpoints>{{.host = "127.0.0.1", .ports = {1, 2}, .labels = {}},
                                    {.host = "no-such-name.invalid", .ports = {1}, .labels = {}}});
  });
  EXPECT_TRUE(
      becomes_true(thread.loop(), [&] { return picker.snapshot()->endpoints.size() == 3; }));
  EXPECT_EQ(picker.snapshot()->endpoints[2].name, "127.0.0.1/127.0.0.1:2");
  EXPECT_EQ(picker.snapshot()->endpoints[2].host_port, "127.0.0.1:2");
  thread.loop().run_and_wait([&] { discovery.reset(); });
}

TEST(Scraper, BringsMetricsToThePickerAndCountsFailures) {
  net::LoopThread thread;
  http::Server server(thread.loop(), {});
  std::atomic<int> scrapes{0};
  std::promise<void> twice;
  server.route("GET", "/metrics", [&](http::Request, http::Responder responder) {
    if (++scrapes == 3) twice.set_value();
    responder.send({.body = "vllm:num_requests_waiting 5\n"});
  });
  EndpointPicker picker(default_config(), real_clock());
  picker.set_endpoints({{.name = "default/a", .address = *server.listen({"127.0.0.1", 0, {}})},
                        {.name = "default/dead", .address = {"127.0.0.1", 1, {}}}});
  http::Client client(thread.loop());
  auto scraper = std::make_unique<Scraper>(thread.loop(), client, picker,
                                           ScraperOptions{.interval = std::chrono::milliseconds(1)},
                                           real_clock());
  ASSERT_EQ(twice.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
  EXPECT_EQ(picker.snapshot()->endpoints[0].metrics.waiting, 5);
  EXPECT_GT(picker.snapshot()->endpoints[0].metrics.updated, TimePoint{});
  EXPECT_EQ(picker.snapshot()->endpoints[1].metrics.updated, TimePoint{});
  EXPECT_GE(scraper->num_errors(), 1);
  thread.loop().run_and_wait([&] { scraper.reset(); });
}

}  // namespace
}  // namespace wideep::epp
