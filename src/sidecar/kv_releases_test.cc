#include "sidecar/kv_releases.h"

#include "http/server.h"
#include "http/testing/scripted_server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

namespace wideep::sidecar {
namespace {

using http::testing::ScriptedServer;

struct Fixture {
  explicit Fixture(KvReleaseOptions options)
      : client(thread.loop()),
        releases(std::make_shared<KvReleases>(thread.loop(), client, options)) {}

  ~Fixture() {
    thread.loop().run_and_wait([&] { releases.reset(); });
  }

  void release(const net::Address& engine, const std::string& request) {
    thread.loop().run_and_wait([&] {
      Json params;
      params.set("ticket", request);
      releases->release({.address = engine}, params, request);
    });
  }

  // Whether all that was released is settled, one way or the other.
  bool settles() {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    int num_pending = 1;
    while (num_pending > 0 && std::chrono::steady_clock::now() < give_up) {
      thread.loop().run_and_wait([&] { num_pending = releases->num_pending(); });
      std::this_thread::yield();
    }
    return num_pending == 0;
  }

  net::LoopThread thread;
  http::Client client;
  std::shared_ptr<KvReleases> releases;  // as its owner has it
};

constexpr KvReleaseOptions kHasty{.tries_max = 4, .pause_first = std::chrono::milliseconds(1)};

TEST(KvReleases, TellAnEngineThatIsDownAgainUntilItHears) {
  std::atomic<int> num_calls = 0;
  const auto answer = [&](std::string_view text) {
    return [&num_calls, text](int fd) {
      ++num_calls;
      http::testing::read_head(fd);
      http::testing::say(fd, text);
    };
  };
  // Cut, then starting, then well: the fourth try is not needed.
  const ScriptedServer engine({answer(""), answer("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n"),
                               answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
                               answer("")});
  Fixture fixture(kHasty);
  fixture.release(engine.address(), "a");
  ASSERT_TRUE(fixture.settles());
  EXPECT_EQ(num_calls, 3);
}

TEST(KvReleases, GiveUpAfterSoManyTries) {
  Fixture fixture(kHasty);
  std::atomic<int> num_calls = 0;
  http::Server engine(fixture.thread.loop(), {});
  engine.route("POST", "/kv_transfer/release",
               [&](const http::Request&, http::Responder responder) {
                 ++num_calls;
                 responder.send({.status = 503});
               });
  const auto address = engine.listen({"127.0.0.1", 0, {}});
  ASSERT_TRUE(address);
  fixture.release(*address, "a");
  ASSERT_TRUE(fixture.settles());
  EXPECT_EQ(num_calls, 4);
  // Nobody listens there at all.
  fixture.release({"127.0.0.1", 1, {}}, "b");
  EXPECT_TRUE(fixture.settles());
}

TEST(KvReleases, TakeARefusalForAnAnswer) {
  Fixture fixture(kHasty);
  std::atomic<int> num_calls = 0;
  http::Server engine(fixture.thread.loop(), {});
  engine.route("POST", "/*", [&](const http::Request&, http::Responder responder) {
    ++num_calls;
    responder.send({.status = 404});  // vLLM, which has no such path
  });
  const auto address = engine.listen({"127.0.0.1", 0, {}});
  ASSERT_TRUE(address);
  fixture.release(*address, "a");
  ASSERT_TRUE(fixture.settles());
  EXPECT_EQ(num_calls, 1);
}

TEST(KvReleases, HaveALimitOfThosePending) {
  KvReleaseOptions options = kHasty;
  options.pending_max = 1;
  Fixture fixture(options);
  std::promise<http::Responder> first;
  std::vector<std::string> bodies;  // on the loop
  http::Server engine(fixture.thread.loop(), {});
  engine.route("POST", "/*", [&](const http::Request& request, http::Responder responder) {
    bodies.push_back(request.body);
    if (bodies.size() == 1) return first.set_value(std::move(responder));
    responder.send({});
  });
  const auto address = engine.listen({"127.0.0.1", 0, {}});
  ASSERT_TRUE(address);
  fixture.release(*address, "a");
  auto held = first.get_future();
  ASSERT_EQ(held.wait_for(std::chrono::seconds(60)), std::future_status::ready);
  fixture.release(*address, "b");
  held.get().send({});
  ASSERT_TRUE(fixture.settles());
  fixture.release(*address, "c");
  ASSERT_TRUE(fixture.settles());
  fixture.thread.loop().run_and_wait([&] {
    EXPECT_EQ(bodies, (std::vector<std::string>{R"({"kv_transfer_params":{"ticket":"a"}})",
                                                R"({"kv_transfer_params":{"ticket":"c"}})"}));
  });
}

}  // namespace
}  // namespace wideep::sidecar
