#include "http/client.h"

#include "http/client_call.h"
#include "http/server.h"
#include "http/testing/scripted_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <thread>

namespace wideep::http {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Stage = CallFailure::Stage;
using ::testing::HasSubstr;
using testing::read_head;
using testing::say;
using testing::ScriptedServer;

std::function<void(int)> answer_with(std::string bytes) {
  return [bytes = std::move(bytes)](int fd) {
    read_head(fd);
    say(fd, bytes);
  };
}

class ClientTest : public ::testing::Test {
 protected:
  ClientTest() {
    server_.emplace(thread_.loop(), ServerOptions{});
    server_->route("POST", "/echo", [](Request request, Responder responder) {
      responder.send({.status = 200,
                      .headers = {{"x-host", request.headers.get("host").data()}},
                      .body = request.body});
    });
    server_->route("GET", "/stream", [](Request, Responder responder) {
      responder.begin_events();
      for (int i = 0; i < 10; ++i)
        responder.write(fmt::format("data: {}\n\n", i));
      responder.finish();
    });
    server_->route("GET", "/wait", [this](Request, Responder responder) {
      responder.on_disconnect([this] { disconnected_.set_value(); });
      waiting_.set_value(responder);
    });
    address_ = *server_->listen({"127.0.0.1", 0, {}});
    client_.emplace(thread_.loop());
  }

  Call call(std::string method, std::string target, std::string body = {}) const {
    return {.address = address_, .method = method, .target = target, .body = body};
  }

  CallFailure failure_from(std::vector<std::function<void(int)>> script, Call call = {}) {
    const ScriptedServer server(std::move(script));
    call.address = server.address();
    const auto response = client_->fetch(std::move(call));
    EXPECT_FALSE(response);
    return response ? CallFailure{} : response.error();
  }

  net::LoopThread thread_;
  std::promise<Responder> waiting_;
  std::promise<void> disconnected_;
  std::optional<Server> server_;
  std::optional<Client> client_;
  net::Address address_;
};

// A server that answers although its client has left: what it had written already must be heard.
TEST_F(ClientTest, HangingUpHearsTheAnswerThatIsOnItsWay) {
  std::promise<void> asked;
  ScriptedServer peer({[&](int fd) {
    read_head(fd);
    asked.set_value();
    char byte = 0;
    EXPECT_EQ(::recv(fd, &byte, 1, 0), 0) << "the end of what the client sends";
    say(fd, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlast");
  }});
  std::string body;
  std::promise<CallResult> done;
  CallHandle handle =
      client_->start({.address = peer.address()},
                     {.on_head = {},
                      .on_body = [&](std::string_view bytes) { body += bytes; },
                      .on_done = [&](const CallResult& result) { done.set_value(result); }});
  asked.get_future().wait();
  handle.hang_up(seconds(20));
  EXPECT_TRUE(done.get_future().get());
  EXPECT_EQ(body, "last");
  EXPECT_EQ(client_->num_idle(), 0);
}

TEST_F(ClientTest, HangingUpWaitsNoLongerThanItsPatience) {
  std::promise<void> asked;
  std::promise<void> over;
  ScriptedServer peer({[&](int fd) {
    read_head(fd);
    asked.set_value();
    over.get_future().wait();
  }});
  std::promise<CallResult> done;
  CallHandle handle =
      client_->start({.address = peer.address()},
                     {.on_head = {}, .on_body = {}, .on_done = [&](const CallResult& result) {
                        done.set_value(result);
                      }});
  asked.get_future().wait();
  handle.hang_up(milliseconds(1));
  const CallResult result = done.get_future().get();
  over.set_value();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().error.code, ErrorCode::kTimeout);
}

TEST_F(ClientTest, FetchesAndReusesItsConnection) {
  for (int i = 0; i < 5; ++i) {
    const auto response = client_->fetch(call("POST", "/echo", "abc"));
    ASSERT_TRUE(response) << response.error().error.message;
    EXPECT_EQ(response->status, 200);
    EXPECT_EQ(response->body, "abc");
    EXPECT_EQ(response->headers.get("x-host"), address_.to_string());
  }
  EXPECT_EQ(client_->num_idle(), 1);
  EXPECT_EQ(server_->num_connections(), 1);
}

TEST_F(ClientTest, FindsNames) {
  Call by_name = call("POST", "/echo", "abc");
  by_name.address.host = "localhost";
  EXPECT_TRUE(client_->fetch(by_name));
}

TEST_F(ClientTest, FetchesOverAUnixSocket) {
  const net::Address address = net::Address::unix_socket(
      (std::filesystem::temp_directory_path() / fmt::format("wd-c-{}.sock", ::getpid())).string());
  ASSERT_TRUE(server_->listen(address));
  Call local = call("POST", "/echo", "abc");
  local.address = address;
  EXPECT_EQ(client_->fetch(local)->body, "abc");
}

TEST_F(ClientTest, StreamsAsItArrives) {
  std::promise<CallResult> done;
  std::string body;
  client_->start(call("GET", "/stream"),
                 {.on_head = [&](const ResponseHead& head) { EXPECT_EQ(head.status, 200); },
                  .on_body = [&](std::string_view bytes) { body += bytes; },
                  .on_done = [&](const CallResult& result) { done.set_value(result); }});
  EXPECT_TRUE(done.get_future().get());
  EXPECT_THAT(body, HasSubstr("data: 0\n\n"));
  EXPECT_THAT(body, HasSubstr("data: 9\n\n"));
}

TEST_F(ClientTest, CancellingClosesTheConnection) {
  std::promise<CallResult> done;
  CallHandle handle = client_->start(
      call("GET", "/wait"),
      {.on_head = {}, .on_body = {}, .on_done = [&](const CallResult& r) { done.set_value(r); }});
  const Responder responder = waiting_.get_future().get();
  handle.cancel();
  const CallResult result = done.get_future().get();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().error.code, ErrorCode::kCancelled);
  EXPECT_EQ(result.error().stage, Stage::kSent);
  EXPECT_EQ(disconnected_.get_future().wait_for(seconds(20)), std::future_status::ready);
}

TEST_F(ClientTest, APausedCallReadsNoMoreUntilItIsResumed) {
  constexpr size_t kBytes = 40 << 20;  // more than both kernels' buffers hold
  std::atomic<size_t> received = 0;
  std::promise<void> first_bytes;
  std::promise<CallResult> done;
  CallHandle handle;
  CallEvents events;
  events.on_body = [&](std::string_view bytes) {
    if (received == 0) {
      handle.pause();
      first_bytes.set_value();
    }
    received += bytes.size();
  };
  events.on_done = [&](const CallResult& result) { done.set_value(result); };
  thread_.loop().run_and_wait([&] { handle = client_->start(call("GET", "/wait"), events); });
  Responder responder = waiting_.get_future().get();
  responder.begin({.status = 200, .headers = {}, .body = std::string(kBytes, 'x')});
  first_bytes.get_future().wait();
  // Every task that was ready has run by then: the call has stopped reading, or has it all.
  thread_.loop().settle([round = 0]() mutable { return ++round == 200; });
  const size_t paused_at = received;
  EXPECT_LT(paused_at, kBytes / 2);
  handle.resume();
  responder.finish();
  EXPECT_TRUE(done.get_future().get());
  EXPECT_EQ(received, kBytes);
}

TEST_F(ClientTest, SaysThatNothingWasSentWhenItCannotConnect) {
  net::Address nobody;
  {
    const ScriptedServer gone({});
    nobody = gone.address();
  }
  Call refused = call("GET", "/");
  refused.address = nobody;
  const auto response = client_->fetch(refused);
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().stage, Stage::kNothingSent);
  EXPECT_EQ(response.error().error.code, ErrorCode::kUnavailable);
}

TEST_F(ClientTest, SaysThatTheRequestWasSentWhenNoAnswerComes) {
  const CallFailure failure = failure_from({read_head});
  EXPECT_EQ(failure.stage, Stage::kSent);
  EXPECT_EQ(failure.error.code, ErrorCode::kUnavailable);
}

TEST_F(ClientTest, SaysThatTheAnswerWasCut) {
  const CallFailure failure =
      failure_from({answer_with("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")});
  EXPECT_EQ(failure.stage, Stage::kAnswering);
  const CallFailure chunked = failure_from(
      {answer_with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")});
  EXPECT_EQ(chunked.stage, Stage::kAnswering);
}

TEST_F(ClientTest, RefusesAnswersItCannotUnderstand) {
  for (const std::string bytes :
       {"nonsense\r\n\r\n", "HTTP/1.1 200 OK\nA: b\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"}) {
    EXPECT_EQ(failure_from({answer_with(bytes)}).error.code, ErrorCode::kInvalidArgument) << bytes;
  }
}

TEST_F(ClientTest, HasADeadlineForEveryStage) {
  const auto wait_for_close = [](int fd) {
    char c = 0;
    while (::recv(fd, &c, 1, 0) == 1) {
    }
  };
  const CallFailure no_head =
      failure_from({wait_for_close}, {.target = "/", .head_timeout = milliseconds(10)});
  EXPECT_EQ(no_head.stage, Stage::kSent);
  EXPECT_EQ(no_head.error.code, ErrorCode::kTimeout);
  const CallFailure no_body =
      failure_from({[&](int fd) {
                     say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc");
                     wait_for_close(fd);
                   }},
                   {.target = "/", .idle_timeout = milliseconds(10)});
  EXPECT_EQ(no_body.stage, Stage::kAnswering);
  EXPECT_EQ(no_body.error.code, ErrorCode::kTimeout);
  const CallFailure in_total =
      failure_from({wait_for_close}, {.target = "/", .total_timeout = milliseconds(10)});
  EXPECT_EQ(in_total.error.code, ErrorCode::kTimeout);
}

TEST_F(ClientTest, ReadsAnAnswerThatEndsWithTheConnection) {
  const ScriptedServer server({answer_with("HTTP/1.0 200 OK\r\n\r\nabc")});
  Call old = call("GET", "/");
  old.address = server.address();
  EXPECT_EQ(client_->fetch(old)->body, "abc");
  EXPECT_EQ(client_->num_idle(), 0);
}

TEST_F(ClientTest, SkipsInterimAnswers) {
  const ScriptedServer server(
      {answer_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")});
  Call once = call("GET", "/");
  once.address = server.address();
  EXPECT_EQ(client_->fetch(once)->body, "a");
}

TEST_F(ClientTest, DropsAKeptConnectionThatTheServerCloses) {
  const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
  const ScriptedServer server({answer_with(answer), answer_with(answer)});
  Call each = call("GET", "/");
  each.address = server.address();
  // The script closes after each answer, whatever the answer said.
  EXPECT_EQ(client_->fetch(each)->body, "a");
  const auto patience = std::chrono::steady_clock::now() + seconds(20);
  while (client_->num_idle() > 0 && std::chrono::steady_clock::now() < patience)
    std::this_thread::yield();
  EXPECT_EQ(client_->fetch(each)->body, "a");
}

TEST_F(ClientTest, HasALimitOfConnections) {
  client_.emplace(thread_.loop(), ClientOptions{.connections_per_address_max = 1});
  std::promise<CallResult> done;
  client_->start(
      call("GET", "/wait"),
      {.on_head = {}, .on_body = {}, .on_done = [&](const auto& r) { done.set_value(r); }});
  Responder responder = waiting_.get_future().get();
  const auto refused = client_->fetch(call("POST", "/echo"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().stage, Stage::kNothingSent);
  EXPECT_EQ(refused.error().error.code, ErrorCode::kExhausted);
  responder.send({});
  EXPECT_TRUE(done.get_future().get());
  EXPECT_TRUE(client_->fetch(call("POST", "/echo")));
}

TEST_F(ClientTest, BoundsWhatItFetches) {
  const auto response = client_->fetch(call("POST", "/echo", "abcd"), 3);
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().error.code, ErrorCode::kExhausted);
}

TEST_F(ClientTest, RefusesATargetThatWouldBreakTheRequestLine) {
  const auto response = client_->fetch(call("GET", "/ HTTP/1.1\r\nA: b"));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().error.code, ErrorCode::kInvalidArgument);
}

TEST_F(ClientTest, CancelsItsCallsWhenItEnds) {
  std::promise<CallResult> done;
  client_->start(
      call("GET", "/wait"),
      {.on_head = {}, .on_body = {}, .on_done = [&](const auto& r) { done.set_value(r); }});
  const Responder responder = waiting_.get_future().get();
  client_.reset();
  EXPECT_EQ(done.get_future().wait_for(seconds(0)), std::future_status::ready);
}

// What a gateway does, in small: no byte is kept that the client below is not ready to take.
TEST_F(ClientTest, AProxyPassesBackpressureOn) {
  ServerOptions options{.limits = {.stream_buffer_bytes_max = 128 * 1024}};
  Server proxy(thread_.loop(), std::move(options));
  proxy.route("*", "/*", [this](Request request, Responder responder) {
    struct Relay {
      Responder responder;
      CallHandle upstream;
      bool lost = false;
    };
    const auto relay = std::make_shared<Relay>(responder, CallHandle{});
    CallEvents events;
    events.on_head = [relay](const ResponseHead& head) {
      relay->responder.begin({.status = head.status, .headers = head.headers, .body = {}});
    };
    events.on_body = [relay](std::string_view bytes) {
      if (relay->responder.write(bytes) != WriteResult::kTaken) relay->lost = true;
      if (relay->responder.buffered() < relay->responder.buffer_bytes_max() / 2) return;
      relay->upstream.pause();
      relay->responder.on_writable([relay] { relay->upstream.resume(); });
    };
    events.on_done = [relay](const CallResult& result) {
      EXPECT_FALSE(relay->lost);
      if (result) {
        relay->responder.finish();
      } else {
        relay->responder.abort();
      }
    };
    relay->upstream = client_->start(call(request.method, request.path, request.body), events);
    responder.on_disconnect([relay] { relay->upstream.cancel(); });
  });
  Call through = call("GET", "/wait");
  through.address = *proxy.listen({"127.0.0.1", 0, {}});
  Client outer(thread_.loop());
  std::promise<CallResult> done;
  size_t received = 0;
  outer.start(through, {.on_head = {},
                        .on_body = [&](std::string_view bytes) { received += bytes.size(); },
                        .on_done = [&](const CallResult& result) { done.set_value(result); }});
  Responder origin = waiting_.get_future().get();
  constexpr size_t kBytes = 8 << 20;
  origin.begin({.status = 200, .headers = {}, .body = std::string(kBytes, 'x')});
  origin.finish();
  EXPECT_TRUE(done.get_future().get());
  EXPECT_EQ(received, kBytes);
}

}  // namespace
}  // namespace wideep::http
