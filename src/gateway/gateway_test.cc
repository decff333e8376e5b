#include "gateway/gateway.h"

#include "http/testing/raw_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <mutex>

namespace wideep::gateway {
namespace {

using ::testing::HasSubstr;

// An engine that records what reaches it and answers with a text.
struct Upstream {
  explicit Upstream(net::EventLoop& loop, std::string answer = "ok") : server(loop, {}) {
    const auto handler = [this, answer](http::Request request, http::Responder responder) {
      const std::scoped_lock lock(mutex);
      seen.push_back(std::move(request));
      responder.send(
          {.headers = {{"content-type", "application/json"}, {"x-wideep-prefill", "127.0.0.1:1"}},
           .body = answer});
    };
    server.route("POST", "/v1/completions", handler);
    server.route("POST", "/kv_transfer/release", handler);
    server.route("GET", "/v1/models", handler);
    address = *server.listen({"127.0.0.1", 0, {}});
  }

  http::Request last() {
    const std::scoped_lock lock(mutex);
    return seen.empty() ? http::Request{} : seen.back();
  }

  http::Server server;
  net::Address address;
  std::mutex mutex;
  std::vector<http::Request> seen;
};

struct Door {
  explicit Door(http::ApiKeys keys = {}, GatewayOptions options = {})
      : picker(*epp::parse_picker_config(
                   "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
                   "plugins: [{type: max-score-picker, parameters: {maxNumOfEndpoints: 3}}]\n"
                   "schedulingProfiles: [{name: p, plugins: [{pluginRef: max-score-picker}]}]\n"),
               real_clock()),
        client(thread.loop()) {
    options.access_log = false;
    thread.loop().run_and_wait([&] {
      gateway = std::make_unique<Gateway>(thread.loop(), client, picker, std::move(keys), options);
      address = *gateway->listen({"127.0.0.1", 0, {}});
    });
  }

  ~Door() {
    thread.loop().run_and_wait([&] { gateway.reset(); });
  }

  std::expected<http::Response, http::CallFailure> post(std::string body,
                                                        http::Headers headers = {},
                                                        std::string target = "/v1/completions") {
    net::LoopThread own;
    http::Client caller(own.loop());
    return caller.fetch({.address = address,
                         .method = "POST",
                         .target = std::move(target),
                         .headers = std::move(headers),
                         .body = std::move(body)});
  }

  net::LoopThread thread;
  epp::EndpointPicker picker;
  http::Client client;
  std::unique_ptr<Gateway> gateway;
  net::Address address;
};

constexpr const char* kBody = R"({"model":"m","prompt":"hi"})";

TEST(Gateway, ForwardsToTheEndpointThatThePickerChose) {
  Door door;
  Upstream upstream(door.thread.loop(), "tokens");
  door.picker.set_endpoints({{.name = "default/a", .address = upstream.address}});
  const auto response = door.post(kBody, {{"x-request-id", "abc"}});
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->body, "tokens");
  EXPECT_EQ(response->headers.get("x-request-id"), "abc");
  EXPECT_EQ(upstream.last().body, kBody);
  EXPECT_EQ(upstream.last().headers.get("x-request-id"), "abc");
  EXPECT_EQ(door.picker.snapshot()->endpoints[0].load->active_requests, 0);
}

TEST(Gateway, StripsWhatOnlyOurSideMaySay) {
  Door door;
  Upstream upstream(door.thread.loop());
  door.picker.set_endpoints({{.name = "default/a", .address = upstream.address}});
  ASSERT_TRUE(
      door.post(R"({"model":"m","prompt":"hi","kv_transfer_params":{"remote_host":"evil"}})",
                {{"X-Prefiller-Host-Port", "evil:1"},
                 {"x-data-parallel-rank", "3"},
                 {"x-keep", "1"},
                 {"x-request-id", "bad id!"}}));
  const http::Request seen = upstream.last();
  EXPECT_THAT(seen.body, ::testing::Not(HasSubstr("evil")));
  EXPECT_EQ(seen.headers.find("x-prefiller-host-port"), nullptr);
  EXPECT_EQ(seen.headers.find("x-data-parallel-rank"), nullptr);
  EXPECT_EQ(seen.headers.get("x-keep"), "1");
  EXPECT_EQ(seen.headers.get("x-request-id").size(), 32U);
}

TEST(Gateway, LetsParametersOfKvPassFromOurOwnSidecars) {
  Door door({}, {.trust_kv_params = true});
  Upstream upstream(door.thread.loop());
  door.picker.set_endpoints({{.name = "default/a", .address = upstream.address}});
  const std::string body = R"({"model":"m","prompt":"hi","kv_transfer_params":{"ticket":"t"}})";
  ASSERT_TRUE(door.post(body));
  EXPECT_EQ(upstream.last().body, body);
}

TEST(Gateway, LetsNobodyButOurOwnSidecarsReleaseKv) {
  for (const bool trusts : {false, true}) {
    Door door({}, {.trust_kv_params = trusts});
    Upstream upstream(door.thread.loop());
    door.picker.set_endpoints({{.name = "default/a", .address = upstream.address}});
    EXPECT_EQ(door.post("{}", {}, "/kv_transfer/release")->status, trusts ? 200 : 404);
    EXPECT_EQ(upstream.last().path, trusts ? "/kv_transfer/release" : "");
  }
}

TEST(Gateway, TellsTheRouteOnlyWhenAskedTo) {
  for (const bool expose : {false, true}) {
    Door door({}, {.expose_routes = expose});
    Upstream upstream(door.thread.loop());
    door.picker.set_endpoints(
        {{.name = "default/d", .address = upstream.address},
         {.name = "default/p", .address = {"127.0.0.1", 1, {}}}});  // refuses: d answers
    const auto response = door.post(kBody);
    ASSERT_TRUE(response);
    EXPECT_EQ(response->headers.get("x-wideep-decode"),
              expose ? "default/d " + upstream.address.to_string() : "");
    EXPECT_EQ(response->headers.get("x-wideep-prefill"), expose ? "default/p 127.0.0.1:1" : "");
    net::LoopThread own;
    http::Client caller(own.loop());
    const auto list = caller.fetch({.address = door.address, .target = "/endpoints"});
    EXPECT_EQ(list->status, expose ? 200 : 404);
    if (expose) EXPECT_THAT(list->body, HasSubstr(R"("name":"default/p")"));
  }
}

TEST(Gateway, TriesTheNextEndpointWhileNothingWasSent) {
  Door door;
  Upstream upstream(door.thread.loop());
  door.picker.set_endpoints({{.name = "default/dead1", .address = {"127.0.0.1", 1, {}}},
                             {.name = "default/dead2", .address = {"127.0.0.1", 1, {}}},
                             {.name = "default/alive", .address = upstream.address}});
  for (int i = 0; i < 8; ++i)
    EXPECT_EQ(door.post(kBody)->status, 200);
}

TEST(Gateway, DoesNotRepeatARequestThatWasSent) {
  Door door;
  std::atomic<int> calls{0};
  http::Server cutter(door.thread.loop(), {});
  cutter.route("POST", "/v1/completions", [&](const http::Request&, http::Responder responder) {
    ++calls;
    responder.abort();
  });
  const net::Address address = *cutter.listen({"127.0.0.1", 0, {}});
  door.picker.set_endpoints(
      {{.name = "default/a", .address = address}, {.name = "default/b", .address = address}});
  EXPECT_EQ(door.post(kBody)->status, 502);
  EXPECT_EQ(calls, 1);
}

TEST(Gateway, PassesOnThePathThatItJudged) {
  Door door;
  http::Server server(door.thread.loop(), {});
  server.route("GET", "/metrics", [](const http::Request&, http::Responder responder) {
    responder.send({.body = "not for clients"});
  });
  server.route("GET", "/v1/models/*", [](const http::Request& request, http::Responder responder) {
    responder.send({.body = "model " + request.rest + " " + request.query});
  });
  door.picker.set_endpoints(
      {{.name = "default/a", .address = *server.listen({"127.0.0.1", 0, {}})}});
  net::LoopThread own;
  http::Client caller(own.loop());
  const auto get = [&](std::string target) {
    return caller.fetch({.address = door.address, .target = std::move(target)})->body;
  };
  EXPECT_EQ(get("/v1/models/a%20b%3F%C3%A4?x=%20"), "model a b?\xC3\xA4 x=%20");
  EXPECT_EQ(get("/v1/models/%252e%252e/%252e%252e/metrics"), "model %2e%2e/%2e%2e/metrics ");
}

TEST(Gateway, DoesNotBlameTheEndpointForAClientThatLeaves) {
  Door door;
  http::Server server(door.thread.loop(), {});
  std::promise<void> asked;
  std::promise<void> hung_up;
  server.route("POST", "/v1/completions", [&](const http::Request&, http::Responder responder) {
    responder.on_disconnect([&, responder] { hung_up.set_value(); });
    asked.set_value();
  });
  door.picker.set_endpoints(
      {{.name = "default/a", .address = *server.listen({"127.0.0.1", 0, {}})}});
  {
    http::testing::RawClient client(door.address);
    ASSERT_TRUE(
        client.send("POST /v1/completions HTTP/1.1\r\nhost: a\r\n"
                    "content-length: 2\r\n\r\n{}"));
    asked.get_future().wait();
  }
  hung_up.get_future().wait();
  net::LoopThread own;
  http::Client caller(own.loop());
  EXPECT_THAT(caller.fetch({.address = door.address, .target = "/metrics"})->body,
              HasSubstr("wideep:gateway_upstream_errors_total 0"));
}

TEST(Gateway, EndsAStreamThatIsCutWithAnError) {
  Door door;
  http::Server cutter(door.thread.loop(), {});
  cutter.route("POST", "/v1/completions", [&](const http::Request&, http::Responder responder) {
    responder.begin_events();
    responder.write("data: {}\n\n");
    responder.abort();
  });
  const net::Address address = *cutter.listen({"127.0.0.1", 0, {}});
  door.picker.set_endpoints({{.name = "default/a", .address = address}});
  const auto response = door.post(kBody);
  ASSERT_TRUE(response) << response.error().error.message;
  EXPECT_THAT(response->body, testing::StartsWith("data: {}\n\ndata: {\"error\":"));
  EXPECT_THAT(response->body, HasSubstr("endpoint_failed"));
  EXPECT_THAT(response->body, testing::EndsWith("data: [DONE]\n\n"));
  EXPECT_EQ(door.picker.snapshot()->endpoints[0].load->active_requests, 0);
}

TEST(Gateway, SaysWhyItRefuses) {
  Door door;
  const auto none = door.post(kBody);
  EXPECT_EQ(none->status, 503);
  EXPECT_EQ(none->headers.get("retry-after"), "1");
  EXPECT_EQ(none->headers.get("x-llm-d-request-dropped-reason"), "rejected-no-endpoints");
  EXPECT_THAT(none->body, HasSubstr("\"code\":\"no_endpoint\""));
  EXPECT_EQ(door.post("{")->status, 400);
  door.picker.set_endpoints({{.name = "default/dead", .address = {"127.0.0.1", 1, {}}}});
  EXPECT_EQ(door.post(kBody)->status, 503);
}

TEST(Gateway, NamesARankThatThereCannotBe) {
  Door door({}, {.version = "1.2", .num_ranks = 2});
  Upstream upstream(door.thread.loop());
  door.picker.set_endpoints({{.name = "default/a", .address = upstream.address}});
  for (const char* wrong : {"2", "-1", "x"}) {
    const auto answer = door.post(kBody, {{"x-data-parallel-rank", wrong}});
    EXPECT_EQ(answer->status, 400) << wrong;
    EXPECT_THAT(answer->body, HasSubstr("must be from 0 to 1")) << wrong;
  }
  EXPECT_EQ(door.post(kBody, {{"x-data-parallel-rank", "1"}})->status, 200);
  net::LoopThread own;
  http::Client caller(own.loop());
  EXPECT_EQ(caller.fetch({.address = door.address, .target = "/version"})->body,
            R"({"version":"1.2"})");
  EXPECT_EQ(caller.fetch({.address = door.address, .target = "/load"})->body,
            R"({"server_load":0})");
}

TEST(Gateway, IsWellWhenAnEndpointCanFinishARequest) {
  Door door;
  const auto status_with = [&](const char* role) {
    epp::Labels labels;
    if (*role != 0) labels[std::string(epp::kRoleLabel)] = role;
    door.picker.set_endpoints(
        {{.name = "default/a", .address = {"127.0.0.1", 1, {}}, .labels = labels}});
    net::LoopThread own;
    http::Client caller(own.loop());
    return caller.fetch({.address = door.address, .target = "/ready"})->status;
  };
  EXPECT_EQ(status_with("prefill"), 503);
  for (const char* role : {"", "decode", "both"})
    EXPECT_EQ(status_with(role), 200) << role;
}

TEST(Gateway, AsksForAKeyOnEveryRouteButHealth) {
  Door door(*http::ApiKeys::load({"secret"}, ""));
  Upstream upstream(door.thread.loop());
  door.picker.set_endpoints({{.name = "default/a", .address = upstream.address}});
  EXPECT_EQ(door.post(kBody)->status, 401);
  EXPECT_EQ(door.post(kBody, {{"authorization", "Bearer secret"}})->status, 200);
  EXPECT_EQ(upstream.last().headers.find("authorization"), nullptr);
  net::LoopThread own;
  http::Client caller(own.loop());
  EXPECT_EQ(caller.fetch({.address = door.address, .target = "/health"})->status, 200);
  EXPECT_EQ(caller.fetch({.address = door.address, .target = "/metrics"})->status, 401);
  EXPECT_EQ(caller.fetch({.address = door.address, .target = "//health/..%2fmetrics"})->status,
            401);
}

TEST(Gateway, ServesModelsFromAnyEndpointAndItsOwnMetrics) {
  Door door;
  Upstream upstream(door.thread.loop(), R"({"data":[]})");
  door.picker.set_endpoints({{.name = "default/a", .address = upstream.address},
                             {.name = "default/dead", .address = {"127.0.0.1", 1, {}}}});
  net::LoopThread own;
  http::Client caller(own.loop());
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(caller.fetch({.address = door.address, .target = "/v1/models"})->body,
              R"({"data":[]})");
  }
  EXPECT_THAT(caller.fetch({.address = door.address, .target = "/metrics"})->body,
              HasSubstr("wideep:gateway_requests"));
}

}  // namespace
}  // namespace wideep::gateway
