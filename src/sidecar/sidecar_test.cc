// The sidecar against scripted stand-ins for vLLM: it must speak the protocol, not only our dialect
// of it.
#include "sidecar/sidecar.h"

#include "http/testing/raw_client.h"
#include "http/testing/scripted_server.h"
#include "sidecar/legs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <mutex>

namespace wideep::sidecar {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Engine {
  explicit Engine(net::EventLoop& loop) : server(loop, {}) {
    for (const char* path :
         {"/v1/chat/completions", "/v1/completions", "/tokenize", "/kv_transfer/release"}) {
      server.route("POST", path, [this](http::Request request, http::Responder responder) {
        {
          const std::scoped_lock lock(mutex);
          seen.push_back(request);
        }
        changed.notify_all();
        answer(std::move(responder));
      });
    }
    address = *server.listen({"127.0.0.1", 0, {}});
  }

  Json body(size_t i) {
    const std::scoped_lock lock(mutex);
    return *parse_json(seen.at(i).body);
  }

  size_t num_seen() {
    const std::scoped_lock lock(mutex);
    return seen.size();
  }

  // False if that many requests do not come.
  bool wait_for(size_t count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(20), [&] { return seen.size() >= count; });
  }

  http::Server server;
  net::Address address;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<http::Request> seen;
  std::function<void(http::Responder)> answer = [](http::Responder responder) {
    responder.send({.body = "{}"});
  };
};

// What a vLLM prefill answers.
constexpr const char* kPrefillAnswer =
    R"({"choices":[{"finish_reason":"length"}],)"
    R"("usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":5}},)"
    R"("kv_transfer_params":{"do_remote_prefill":true,"do_remote_decode":false,)"
    R"("remote_block_ids":[[7,8]],"remote_engine_id":"e1","remote_request_id":"r",)"
    R"("remote_host":"10.1.1.1","remote_port":5600,"tp_size":1}})";

struct Pair {
  explicit Pair(SidecarOptions options = {})
      : prefill(thread.loop()), decode(thread.loop()), client(thread.loop()) {
    prefill.answer = [](http::Responder responder) { responder.send({.body = kPrefillAnswer}); };
    options.engine = decode.address;
    if (options.allowed_prefill.empty())
      options.allowed_prefill = {prefill.address.to_string(), "127.0.0.1:1"};
    thread.loop().run_and_wait([&] {
      sidecar = std::make_unique<Sidecar>(thread.loop(), client, options);
      address = *sidecar->listen({"127.0.0.1", 0, {}});
    });
  }

  ~Pair() {
    thread.loop().run_and_wait([&] { sidecar.reset(); });
  }

  http::Response post(const std::string& body,
                      const std::string& prefiller,
                      const char* path = "/v1/completions") {
    net::LoopThread own;
    http::Client caller(own.loop());
    http::Call call{.address = address, .method = "POST", .target = path, .body = body};
    if (!prefiller.empty()) call.headers.set("x-prefiller-host-port", prefiller);
    auto response = caller.fetch(std::move(call));
    return response
               ? *response
               : http::Response{.status = 0, .headers = {}, .body = response.error().error.message};
  }

  net::LoopThread thread;
  Engine prefill;
  Engine decode;
  http::Client client;
  std::unique_ptr<Sidecar> sidecar;
  net::Address address;
};

constexpr const char* kRequest =
    R"({"model":"m","prompt":"x","max_tokens":50,"min_tokens":3,"stream":true,)"
    R"("stream_options":{"include_usage":true}})";

TEST(Sidecar, LetsNobodyInWithoutAKeyIfThereAreKeys) {
  Pair pair({.keys = *http::ApiKeys::load({"secret"}, "")});
  net::LoopThread own;
  http::Client caller(own.loop());
  const auto status = [&](const char* method, const char* path, const char* key) {
    http::Call call{.address = pair.address, .method = method, .target = path, .body = "{}"};
    if (*key != 0) call.headers.set("authorization", std::string("Bearer ") + key);
    return caller.fetch(std::move(call))->status;
  };
  for (const char* wrong : {"", "other"}) {
    EXPECT_EQ(status("POST", "/v1/completions", wrong), 401);
    EXPECT_EQ(status("GET", "/metrics", wrong), 401);
  }
  EXPECT_EQ(status("POST", "/v1/completions", "secret"), 200);
  EXPECT_EQ(status("GET", "/health", ""), 200);
}

TEST(Sidecar, NamesThePrefillHostThatWasUsedOnlyWhenAskedTo) {
  for (const bool asked : {false, true}) {
    Pair pair({.route_headers = asked, .on_prefill_failure = PrefillFailurePolicy::kDecodeOnly});
    const std::string prefiller = pair.prefill.address.to_string();
    EXPECT_EQ(pair.post(kRequest, prefiller).headers.get("x-wideep-prefill"),
              asked ? prefiller : "");
    EXPECT_EQ(pair.post(kRequest, "127.0.0.1:1").headers.get("x-wideep-prefill"), "")
        << "the decode rank computed the prompt";
  }
}

TEST(Sidecar, DecodesARequestWithSeveralPromptsHere) {
  Pair pair;
  const std::string prefiller = pair.prefill.address.to_string();
  EXPECT_EQ(pair.post(R"({"model":"m","prompt":["a","b"]})", prefiller).status, 200);
  EXPECT_EQ(pair.post(R"({"model":"m","prompt":[[1,2],[3]]})", prefiller).status, 200);
  EXPECT_EQ(pair.prefill.num_seen(), 0U);
  EXPECT_EQ(pair.decode.num_seen(), 2U);
  for (const char* one : {R"({"prompt":[1,2]})", R"({"prompt":["a"]})", R"({"prompt":"a"})"})
    EXPECT_EQ(pair.post(one, prefiller).status, 200);
  EXPECT_EQ(pair.prefill.num_seen(), 3U);
}

TEST(Sidecar, SendsOneTokenToPrefillAndItsParametersVerbatimToDecode) {
  Pair pair;
  ASSERT_EQ(pair.post(kRequest, pair.prefill.address.to_string()).status, 200);
  const Json first = pair.prefill.body(0);
  EXPECT_EQ(first.find("max_tokens")->as_int(), 1);
  EXPECT_EQ(first.find("max_completion_tokens")->as_int(), 1);
  EXPECT_EQ(first.find("min_tokens")->as_int(), 1);
  EXPECT_EQ(first.find("stream")->as_bool(), false);
  EXPECT_EQ(first.find("stream_options"), nullptr);
  EXPECT_EQ(first.find("kv_transfer_params")->dump(),
            R"({"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,)"
            R"("remote_block_ids":null,"remote_host":null,"remote_port":null})");

  Json expected = *parse_json(kRequest);
  expected.set("kv_transfer_params", *parse_json(kPrefillAnswer)->find("kv_transfer_params"));
  EXPECT_EQ(pair.decode.body(0), expected);
  EXPECT_EQ(pair.prefill.seen[0].headers.get("x-request-id"),
            pair.decode.seen[0].headers.get("x-request-id"));
  EXPECT_EQ(pair.decode.seen[0].headers.find("x-prefiller-host-port"), nullptr);
}

TEST(Sidecar, PassesRequestsWithoutPrefillerAndOtherPathsOn) {
  Pair pair;
  pair.decode.answer = [](http::Responder responder) {
    responder.send({.status = 418, .body = "teapot"});
  };
  EXPECT_EQ(pair.post(kRequest, "").status, 418);
  EXPECT_EQ(pair.post("anything at all", "", "/tokenize").body, "teapot");
  EXPECT_EQ(pair.prefill.num_seen(), 0U);
}

TEST(Sidecar, RewritesCachedTokensInJsonAndInEvents) {
  Pair pair;
  pair.decode.answer = [](http::Responder responder) {
    responder.send(
        {.headers = {{"content-type", "application/json"}},
         .body = R"({"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":8}}})"});
  };
  EXPECT_EQ(pair.post(kRequest, pair.prefill.address.to_string()).body,
            R"({"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":5}}})");
  pair.decode.answer = [](http::Responder responder) {
    responder.begin_events();
    responder.write("data: {\"choices\":[]}\n\nda");
    responder.write("ta: {\"usage\":{\"prompt_tokens\":9}}\n\n");
    responder.write("data: [DONE]\n\n");
    responder.finish();
  };
  EXPECT_EQ(
      pair.post(kRequest, pair.prefill.address.to_string()).body,
      "data: {\"choices\":[]}\n\n"
      "data: {\"usage\":{\"prompt_tokens\":9,\"prompt_tokens_details\":{\"cached_tokens\":5}}}\n\n"
      "data: [DONE]\n\n");
}

TEST(Sidecar, RefusesPrefillHostsThatAreNotOnItsList) {
  Pair pair({.allowed_prefill = {"10.9.9.9"}});
  for (const char* host :
       {"127.0.0.1:80", "169.254.169.254:80", "10.9.9.9", "unix:/run/x", "10.9.9.9:80,evil:1"}) {
    const http::Response response = pair.post(kRequest, host);
    EXPECT_EQ(response.status, 403) << host;
    EXPECT_THAT(response.body, HasSubstr("SSRF"));
  }
  EXPECT_EQ(pair.decode.num_seen(), 0U);
}

TEST(Sidecar, StripsParametersThatAClientBrings) {
  Pair pair;
  pair.post(R"({"model":"m","kv_transfer_params":{"remote_host":"evil"}})", "");
  EXPECT_EQ(pair.decode.body(0).find("kv_transfer_params"), nullptr);
}

TEST(Sidecar, FollowsItsPolicyWhenPrefillFails) {
  const auto busy = [](http::Responder responder) {
    responder.send({.status = 503, .body = "busy"});
  };
  {
    Pair pair;
    pair.prefill.answer = busy;
    EXPECT_EQ(pair.post(kRequest, pair.prefill.address.to_string()).body, "busy");
    EXPECT_EQ(pair.post(kRequest, "127.0.0.1:1").status, 502);
    EXPECT_EQ(pair.decode.num_seen(), 0U);
  }
  {
    Pair pair({.on_prefill_failure = PrefillFailurePolicy::kDecodeOnly});
    pair.prefill.answer = busy;
    EXPECT_EQ(pair.post(kRequest, pair.prefill.address.to_string()).status, 200);
    EXPECT_EQ(pair.decode.body(0).find("kv_transfer_params"), nullptr);
    pair.prefill.answer = [](http::Responder r) { r.send({.status = 429, .body = "full"}); };
    EXPECT_EQ(pair.post(kRequest, pair.prefill.address.to_string()).status, 200);
    pair.prefill.answer = [](http::Responder r) { r.send({.status = 422, .body = "your fault"}); };
    EXPECT_EQ(pair.post(kRequest, pair.prefill.address.to_string()).status, 422);
  }
  {
    Pair pair({.on_prefill_failure = PrefillFailurePolicy::kRetryOther});
    EXPECT_EQ(pair.post(kRequest, "127.0.0.1:1," + pair.prefill.address.to_string()).status, 200);
    EXPECT_NE(pair.decode.body(0).find("kv_transfer_params"), nullptr);
    EXPECT_EQ(pair.post(kRequest, "127.0.0.1:1,127.0.0.1:1").status, 502);
  }
}

std::string raw_request(const net::Address& prefiller) {
  const std::string body = kRequest;
  return "POST /v1/completions HTTP/1.1\r\nhost: a\r\nx-prefiller-host-port: " +
         prefiller.to_string() + "\r\ncontent-length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

TEST(Sidecar, CancelsThePrefillWhenTheClientLeaves) {
  Pair pair;
  std::promise<void> started;
  std::promise<void> cancelled;
  pair.prefill.answer = [&](http::Responder responder) {
    responder.on_disconnect([responder, &cancelled] { cancelled.set_value(); });
    started.set_value();
  };
  {
    http::testing::RawClient raw(pair.address);
    raw.send(raw_request(pair.prefill.address));
    ASSERT_EQ(started.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
  }
  EXPECT_EQ(cancelled.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_EQ(pair.decode.num_seen(), 0U);
}

TEST(Sidecar, LetsTheKvGoWhenTheClientLeavesBetweenTheLegs) {
  std::promise<void> asked;
  http::testing::ScriptedServer prefill({[&](int fd) {
    http::testing::read_head(fd);
    asked.set_value();
    char byte = 0;
    while (::recv(fd, &byte, 1, 0) == 1) {
    }  // the body, then the end: the client has left
    http::testing::say(fd, "HTTP/1.1 200 OK\r\ncontent-length: " +
                               std::to_string(std::string_view(kPrefillAnswer).size()) +
                               "\r\n\r\n" + kPrefillAnswer);
  }});
  Pair pair({.allowed_prefill = {"127.0.0.1"}});
  {
    http::testing::RawClient raw(pair.address);
    raw.send(raw_request(prefill.address()));
    ASSERT_EQ(asked.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
  }
  ASSERT_TRUE(pair.decode.wait_for(1));
  EXPECT_EQ(pair.decode.seen[0].path, "/kv_transfer/release");
  EXPECT_EQ(*pair.decode.body(0).find("kv_transfer_params"),
            *parse_json(kPrefillAnswer)->find("kv_transfer_params"));
}

TEST(Sidecar, LetsTheKvGoWhenTheDecodeEngineRefusesTheRequest) {
  Pair pair;
  pair.decode.answer = [](http::Responder responder) {
    responder.send({.status = 503, .body = "full"});
  };
  EXPECT_EQ(pair.post(kRequest, pair.prefill.address.to_string()).status, 503);
  ASSERT_TRUE(pair.decode.wait_for(2));
  EXPECT_EQ(pair.decode.seen[1].path, "/kv_transfer/release");
}

TEST(UsageRewriter, GivesTheSameBytesHoweverTheStreamIsCut) {
  const std::string stream =
      "data: {\"a\":1}\n\n: ping\n\ndata: {\"usage\":{\"x\":1}}\n\ndata: [DONE]\n\n";
  UsageRewriter whole(true, 3);
  const std::string expected = whole.feed(stream, false) + whole.feed({}, true);
  for (size_t cut = 0; cut < stream.size(); ++cut) {
    UsageRewriter rewriter(true, 3);
    const std::string out = rewriter.feed(stream.substr(0, cut), false) +
                            rewriter.feed(stream.substr(cut), false) + rewriter.feed({}, true);
    ASSERT_EQ(out, expected) << cut;
  }
  EXPECT_THAT(expected, HasSubstr("\"cached_tokens\":3"));
  UsageRewriter json(false, 3);
  EXPECT_EQ(json.feed("not json", false) + json.feed({}, true), "not json");
}

}  // namespace
}  // namespace wideep::sidecar
