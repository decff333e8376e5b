#include "http/forward.h"

#include "http/server.h"
#include "http/testing/raw_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <string>

namespace wideep::http {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

// An upstream and a proxy in front of it, each on its own thread.
struct Proxied {
  // First, because the threads use them to their end.
  std::promise<bool> ended;  // whether the forward ended well
  std::function<ForwardEvents()> events = [] { return ForwardEvents{}; };
  net::Address upstream_address;
  net::LoopThread upstream_thread;
  net::LoopThread proxy_thread;
  Server upstream{upstream_thread.loop(), {}};
  Client client{proxy_thread.loop()};
  Server proxy{proxy_thread.loop(), {.limits = {.stream_buffer_bytes_max = 64 * 1024}}};

  net::Address start() {
    upstream_address = *upstream.listen({"127.0.0.1", 0, {}});
    return start_proxy();
  }

  net::Address start_proxy() {
    proxy.route("GET", "/x", [this](Request request, Responder responder) {
      Call call{.address = upstream_address,
                .target = "/x",
                .headers = end_to_end_headers(request.headers)};
      ForwardEvents with_end = events();
      with_end.on_done = [this](const CallResult& result) { ended.set_value(result.has_value()); };
      forward(proxy_thread.loop(), client, std::move(call), std::move(responder),
              std::move(with_end));
    });
    return *proxy.listen({"127.0.0.1", 0, {}});
  }
};

std::expected<Response, CallFailure> get(const net::Address& address) {
  net::LoopThread thread;
  Client client(thread.loop());
  return client.fetch({.address = address, .target = "/x"}, int64_t{64} << 20);
}

TEST(Forward, PassesStatusHeadersAndALongBodyThroughASmallBuffer) {
  Proxied chain;
  const std::string body(3'000'000, 'b');
  chain.upstream.route("GET", "/x", [&](Request, Responder responder) {
    responder.send(
        {.status = 201, .headers = {{"x-a", "1"}, {"keep-alive", "timeout=3"}}, .body = body});
  });
  const auto response = get(chain.start());
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 201);
  EXPECT_EQ(response->headers.get("x-a"), "1");
  EXPECT_EQ(response->headers.get("keep-alive"), "");
  EXPECT_TRUE(response->body == body);
  EXPECT_TRUE(chain.ended.get_future().get());
}

TEST(Forward, RewritesTheBodyAndItsEnd) {
  Proxied chain;
  chain.events = [] {
    return ForwardEvents{.on_head = [](ResponseHead& head) { head.headers.set("x-b", "2"); },
                         .rewrite =
                             [](std::string_view bytes, bool end) {
                               return end ? std::string("!") : "<" + std::string(bytes) + ">";
                             }};
  };
  chain.upstream.route("GET", "/x",
                       [](Request, Responder responder) { responder.send({.body = "hi"}); });
  const auto response = get(chain.start());
  ASSERT_TRUE(response);
  EXPECT_EQ(response->body, "<hi>!");
  EXPECT_EQ(response->headers.get("x-b"), "2");
}

TEST(Forward, AnswersBadGatewayOrLeavesItToTheCaller) {
  Proxied chain;
  chain.upstream_address = {"127.0.0.1", 1, {}};  // nobody listens there
  const net::Address address = chain.start_proxy();
  EXPECT_EQ(get(address)->status, 502);
  EXPECT_FALSE(chain.ended.get_future().get());

  Proxied other;
  other.upstream_address = {"127.0.0.1", 1, {}};
  std::promise<CallFailure::Stage> stage;
  other.events = [&] {
    return ForwardEvents{.on_failure = [&](const CallFailure& failure) {
      stage.set_value(failure.stage);
      return true;
    }};
  };
  EXPECT_EQ(get(other.start_proxy())->status, 500);  // the caller took it and did not answer
  EXPECT_EQ(stage.get_future().get(), CallFailure::Stage::kNothingSent);
}

TEST(Forward, CancelsTheUpstreamWhenTheClientLeaves) {
  Proxied chain;
  std::promise<void> upstream_lost_its_client;
  chain.upstream.route("GET", "/x", [&](Request, Responder responder) {
    responder.begin_events();
    responder.write("data: 1\n\n");
    // The copy in the callback keeps the stream open until the client is gone.
    responder.on_disconnect(
        [responder, &upstream_lost_its_client] { upstream_lost_its_client.set_value(); });
  });
  const net::Address address = chain.start();
  {
    testing::RawClient raw(address);
    ASSERT_TRUE(raw.send("GET /x HTTP/1.1\r\nhost: a\r\n\r\n"));
    EXPECT_THAT(raw.receive_until("data: 1"), HasSubstr("data: 1"));
  }
  EXPECT_EQ(upstream_lost_its_client.get_future().wait_for(seconds(20)), std::future_status::ready);
  EXPECT_FALSE(chain.ended.get_future().get());
}

TEST(Forward, CutsTheClientWhenTheUpstreamIsCut) {
  Proxied chain;
  chain.upstream.route("GET", "/x", [](Request, Responder responder) {
    responder.begin_events();
    responder.write("data: 1\n\n");
    responder.abort();
  });
  const auto response = get(chain.start());
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().stage, CallFailure::Stage::kAnswering);
}

TEST(Forward, LetsTheCallerSayWhyTheUpstreamWasCut) {
  Proxied chain;
  chain.events = [] {
    return ForwardEvents{.last_words = [](const CallFailure& failure, std::string_view tail) {
      return fmt::format("{}{}", failure.stage == CallFailure::Stage::kAnswering ? "cut " : "",
                         tail == "\n\n" ? "between events" : "within one");
    }};
  };
  chain.upstream.route("GET", "/x", [](Request, Responder responder) {
    responder.begin_events();
    responder.write("data: 1\n");
    responder.write("\n");
    responder.abort();
  });
  const auto response = get(chain.start());
  ASSERT_TRUE(response);
  EXPECT_EQ(response->body, "data: 1\n\ncut between events");
  EXPECT_FALSE(chain.ended.get_future().get());
}

TEST(ForwardedTarget, AsksForThePathThatWasAskedFor) {
  EXPECT_EQ(forwarded_target({.path = "/v1/models"}), "/v1/models");
  EXPECT_EQ(forwarded_target({.path = "/%2e%2e/a b?", .query = "x=%20"}),
            "/%252e%252e/a%20b%3F?x=%20");
}

TEST(EndToEndHeaders, DropsThoseOfTheConnection) {
  const Headers kept = end_to_end_headers({{"Host", "a"},
                                           {"Connection", "close, X-Hop"},
                                           {"x-hop", "1"},
                                           {"TE", "trailers"},
                                           {"accept", "b"}});
  EXPECT_EQ(kept.size(), 1U);
  EXPECT_EQ(kept.get("accept"), "b");
}

}  // namespace
}  // namespace wideep::http
