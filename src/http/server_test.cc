#include "http/server.h"

#include "http/responder.h"
#include "http/socket_pump.h"
#include "http/testing/raw_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace wideep::http {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::RawClient;
using ::testing::StartsWith;

constexpr std::string_view kGet = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";

std::string post(std::string_view path, std::string_view body) {
  return fmt::format(
      "POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
      "{}\r\n\r\n{}",
      path, body.size(), body);
}

// A server with a few routes. What handlers keep for a test to use comes through promises.
class ServerTest : public ::testing::Test {
 protected:
  void start(ServerOptions options = {}) {
    server_.emplace(thread_.loop(), std::move(options));
    server_->route("GET", "/hello", [](Request, Responder responder) {
      responder.send({.status = 200, .headers = {{"x-a", "b"}}, .body = "hello"});
    });
    server_->route("POST", "/echo",
                   [](Request request, Responder responder) {
                     responder.send({.status = 200, .headers = {}, .body = request.body});
                   },
                   {.media_type = "application/json"});
    server_->route("GET", "/rest/*", [](Request request, Responder responder) {
      responder.send({.status = 200, .headers = {}, .body = request.rest + "|" + request.query});
    });
    server_->route("GET", "/stream", [](Request, Responder responder) {
      responder.begin_events();
      responder.write("data: 1\n\n");
      responder.write("data: 2\n\n");
      responder.finish();
    });
    server_->route("GET", "/wait", [this](Request, Responder responder) {
      responder.on_disconnect([this] { disconnected_.set_value(); });
      waiting_.set_value(responder);
    });
    server_->route("GET", "/forget", [](Request, Responder) {});
    const auto address = server_->listen({"127.0.0.1", 0, {}});
    ASSERT_TRUE(address) << address.error().message;
    address_ = *address;
  }

  // The answer to `request` on its own connection, which the server must close.
  std::string last_answer(std::string_view request) {
    RawClient client(address_);
    client.send(request);
    const std::string answer = client.receive_all();
    EXPECT_TRUE(client.was_closed()) << request.substr(0, 100);
    return answer;
  }

  Responder take_waiting() { return waiting_.get_future().get(); }

  void expect_disconnected() {
    EXPECT_EQ(disconnected_.get_future().wait_for(seconds(20)), std::future_status::ready);
  }

  net::LoopThread thread_;
  std::promise<Responder> waiting_;
  std::promise<void> disconnected_;
  std::optional<Server> server_;
  net::Address address_;
};

TEST_F(ServerTest, AnswersAndKeepsTheConnection) {
  start();
  RawClient client(address_);
  for (int i = 0; i < 3; ++i) {
    client.send(kGet);
    EXPECT_EQ(client.receive_answer(),
              "HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 5\r\n\r\nhello");
  }
}

TEST_F(ServerTest, AnswersPipelinedRequestsInOrder) {
  start();
  RawClient client(address_);
  client.send(post("/echo", "1") + post("/echo", "2") + "\r\n" + post("/echo", "3"));
  EXPECT_THAT(client.receive_answer(), HasSubstr("\r\n\r\n1"));
  EXPECT_THAT(client.receive_answer(), HasSubstr("\r\n\r\n2"));
  EXPECT_THAT(client.receive_answer(), HasSubstr("\r\n\r\n3"));
}

TEST_F(ServerTest, ClosesWhenTheClientAsksForIt) {
  start();
  EXPECT_THAT(last_answer("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
              HasSubstr("connection: close\r\n\r\nhello"));
  EXPECT_THAT(last_answer("GET /hello HTTP/1.0\r\n\r\n"), HasSubstr("\r\n\r\nhello"));
}

TEST_F(ServerTest, ReadsChunkedBodies) {
  start();
  RawClient client(address_);
  client.send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n");
  client.send("1\r\nc\r\n0\r\n\r\n");
  EXPECT_THAT(client.receive_answer(), HasSubstr("\r\n\r\nabc"));
}

TEST_F(ServerTest, InvitesABodyThatWaitsToBeInvited) {
  start();
  RawClient client(address_);
  client.send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.receive_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("ab");
  EXPECT_THAT(client.receive_answer(), HasSubstr("\r\n\r\nab"));
}

TEST_F(ServerTest, DoesNotInviteABodyItRefuses) {
  start();
  EXPECT_THAT(last_answer("POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                          "Expect: 100-continue\r\n\r\n"),
              StartsWith("HTTP/1.1 404 "));
}

TEST_F(ServerTest, HeadHasTheLengthButNotTheBody) {
  start();
  RawClient client(address_);
  client.send("HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(client.receive_until("\r\n\r\n"), HasSubstr("content-length: 5\r\n"));
  client.send(kGet);  // nothing stands between the two answers
  EXPECT_THAT(client.receive_answer(), StartsWith("HTTP/1.1 200 "));
}

TEST_F(ServerTest, RoutesOneSpellingOfEachPath) {
  start();
  RawClient client(address_);
  client.send("GET http://x//rest/./a%2Fb%20c?q=1 HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(client.receive_answer(), HasSubstr("\r\n\r\na/b c|q=1"));
}

TEST_F(ServerTest, NamesWhatIsWrongWithARequest) {
  start({.limits = {.parser = {.line_bytes_max = 200,
                               .header_bytes_max = 500,
                               .header_fields_max = 100,
                               .body_bytes_max = 10}}});
  const std::string start_line = "GET /hello HTTP/1.1\r\nHost: x\r\n";
  const std::string long_line = "A: " + std::string(190, 'a') + "\r\n";
  EXPECT_THAT(last_answer(post("/nothing", "x")), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(last_answer(post("/hello", "x")), HasSubstr("allow: GET, HEAD\r\n"));
  EXPECT_THAT(last_answer(post("/hello", "x")), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(last_answer(post("/echo", "12345678901")), StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(last_answer("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"),
              StartsWith("HTTP/1.1 415 "));
  EXPECT_THAT(last_answer(start_line + long_line + long_line + long_line),
              StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(last_answer("GET /" + std::string(300, 'a')), StartsWith("HTTP/1.1 414 "));
  EXPECT_THAT(last_answer(start_line + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
              StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(last_answer("GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
}

TEST_F(ServerTest, BoundsAllBodiesTogetherUntilTheirHandlersLetGo) {
  start({.limits = {.all_bodies_bytes_max = 10}});
  std::promise<Request> taken;
  server_->route("POST", "/keep", [&](Request request, Responder responder) {
    responder.send({});
    taken.set_value(std::move(request));
  });
  RawClient keeper(address_);
  keeper.send(post("/keep", "12345678"));
  keeper.receive_answer();
  std::optional<Request> kept = taken.get_future().get();
  const std::string refused = last_answer(post("/echo", "123"));
  EXPECT_THAT(refused, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(refused, HasSubstr("retry-after: 1\r\n"));
  kept.reset();
  RawClient client(address_);
  client.send(post("/echo", "1234567890"));
  EXPECT_THAT(client.receive_answer(), HasSubstr("\r\n\r\n1234567890"));
}

TEST_F(ServerTest, ReadsNothingAfterARequestItCouldNotFrame) {
  start();
  const std::string smuggled =
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 6\r\n"
      "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" +
      std::string(kGet);
  EXPECT_THAT(last_answer(smuggled), Not(HasSubstr("hello")));
}

TEST_F(ServerTest, DeliversTheRefusalOfAHugeBodyThatIsStillBeingSent) {
  start({.limits = {.parser = {.body_bytes_max = 1000}}});
  RawClient client(address_);
  client.send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Content-Length: 200000\r\n\r\n");
  client.send(std::string(200000, 'a'));
  EXPECT_THAT(client.receive_all(), StartsWith("HTTP/1.1 413 "));
}

TEST_F(ServerTest, GivesUpOnIdleConnections) {
  start({.limits = {.idle_timeout = milliseconds(30)}});
  EXPECT_EQ(last_answer(""), "");
}

TEST_F(ServerTest, GivesUpOnSlowHeadsAndBodies) {
  start({.limits = {.header_timeout = milliseconds(30), .body_timeout = milliseconds(30)}});
  EXPECT_THAT(last_answer("GET /hello"), StartsWith("HTTP/1.1 408 "));
  const std::string request = post("/echo", "abc");
  EXPECT_THAT(last_answer(request.substr(0, request.size() - 1)), StartsWith("HTTP/1.1 408 "));
}

TEST_F(ServerTest, RefusesOneConnectionMoreThanItsLimit) {
  start({.limits = {.connections_max = 2}});
  RawClient first(address_);
  RawClient second(address_);
  first.send(kGet);
  second.send(kGet);
  first.receive_answer();
  second.receive_answer();
  const std::string answer = last_answer(kGet);
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("retry-after: 1\r\n"));
  first.send(kGet);
  EXPECT_THAT(first.receive_answer(), StartsWith("HTTP/1.1 200 "));
}

TEST_F(ServerTest, ServesManyConnectionsAtOnce) {
  start();
  std::vector<RawClient> clients;
  for (int i = 0; i < 500; ++i) {
    clients.emplace_back(address_);
    ASSERT_TRUE(clients.back().send(kGet));
  }
  for (RawClient& client : clients)
    EXPECT_THAT(client.receive_answer(), HasSubstr("hello"));
}

TEST_F(ServerTest, GuardsEveryPathBeforeItIsRouted) {
  ServerOptions options;
  options.guard = [](const Request& request) -> std::optional<Response> {
    if (request.path == "/hello") return std::nullopt;
    return Response{.status = 401, .headers = {}, .body = request.path};
  };
  start(std::move(options));
  EXPECT_THAT(last_answer(post("/nothing", "x")), StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(last_answer(post("//hello/../echo", "x")), HasSubstr("\r\n\r\n/echo"));
  RawClient client(address_);
  client.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(client.receive_answer(), StartsWith("HTTP/1.1 401 "));
  client.send(kGet);  // without a body to skip, the connection stays
  EXPECT_THAT(client.receive_answer(), StartsWith("HTTP/1.1 200 "));
}

TEST_F(ServerTest, StreamsInChunks) {
  start();
  RawClient client(address_);
  client.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string answer = client.receive_until("0\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("content-type: text/event-stream; charset=utf-8\r\n"));
  EXPECT_THAT(answer, HasSubstr("transfer-encoding: chunked\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\n\r\n9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"));
  client.send(kGet);
  EXPECT_THAT(client.receive_answer(), HasSubstr("hello"));
}

TEST_F(ServerTest, StreamsToHttp10WithoutChunks) {
  start();
  EXPECT_THAT(last_answer("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
              ::testing::EndsWith("\r\n\r\ndata: 1\n\ndata: 2\n\n"));
}

TEST_F(ServerTest, TakesEventsFromAnotherThread) {
  start();
  RawClient client(address_);
  client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  std::thread engine([responder = take_waiting()]() mutable {
    responder.begin_events();
    for (int i = 0; i < 100; ++i)
      EXPECT_EQ(responder.write(fmt::format("data: {}\n\n", i)), WriteResult::kTaken);
    responder.finish();
  });
  EXPECT_THAT(client.receive_until("0\r\n\r\n"), HasSubstr("data: 99\n\n"));
  engine.join();
}

TEST_F(ServerTest, TellsTheHandlerThatTheClientHasLeft) {
  start();
  RawClient client(address_);
  client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  Responder responder = take_waiting();
  EXPECT_FALSE(responder.is_gone());
  client.close();
  expect_disconnected();
  EXPECT_TRUE(responder.is_gone());
  responder.begin_events();
  EXPECT_EQ(responder.write("x"), WriteResult::kGone);
  std::promise<void> at_once;
  responder.on_disconnect([&] { at_once.set_value(); });
  EXPECT_EQ(at_once.get_future().wait_for(seconds(0)), std::future_status::ready);
}

TEST_F(ServerTest, NoticesAResetInTheMiddleOfAStream) {
  start();
  RawClient client(address_);
  client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  Responder responder = take_waiting();
  responder.begin_events();
  responder.write("data: 1\n\n");
  client.receive_until("data: 1");
  client.reset();
  expect_disconnected();
}

TEST_F(ServerTest, AnswersAClientThatHasFinishedSending) {
  start();
  RawClient client(address_);
  client.send(kGet);
  client.close_sending();
  EXPECT_THAT(client.receive_all(), HasSubstr("hello"));
}

TEST_F(ServerTest, BoundsWhatASlowClientMakesItKeep) {
  start({.limits = {.stream_buffer_bytes_max = 64 * 1024}});
  RawClient client(address_, 4096);
  client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  Responder responder = take_waiting();
  responder.begin_events();
  const std::string event(8 * 1024, 'x');
  int num_taken = 0;
  WriteResult result = WriteResult::kTaken;
  // The kernel takes some megabytes first; the buffer is full long before this ends.
  for (; num_taken < 10'000 && result == WriteResult::kTaken; ++num_taken)
    result = responder.write(event);
  EXPECT_EQ(result, WriteResult::kFull);
  EXPECT_LE(responder.buffered(), 64U * 1024 + 1024);
  std::promise<void> writable;
  responder.on_writable([&] { writable.set_value(); });
  std::thread reader([&] { client.receive_all(); });
  EXPECT_EQ(writable.get_future().wait_for(seconds(20)), std::future_status::ready);
  EXPECT_EQ(responder.write(event), WriteResult::kTaken);
  responder.abort();
  reader.join();
}

TEST_F(ServerTest, CutsAClientThatReadsNothing) {
  start({.limits = {.write_timeout = milliseconds(50), .stream_buffer_bytes_max = 64 << 20}});
  RawClient client(address_, 4096);
  client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  Responder responder = take_waiting();
  responder.begin({.status = 200, .headers = {}, .body = {}});
  EXPECT_EQ(responder.write(std::string(32 << 20, 'x')), WriteResult::kTaken);
  expect_disconnected();
}

TEST_F(ServerTest, CutsAStreamThatIsAborted) {
  start();
  RawClient client(address_);
  client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  Responder responder = take_waiting();
  responder.begin_events();
  responder.write("data: 1\n\n");
  responder.abort();
  const std::string answer = client.receive_all();
  EXPECT_THAT(answer, HasSubstr("data: 1"));
  EXPECT_THAT(answer, Not(HasSubstr("\r\n0\r\n\r\n")));
  EXPECT_TRUE(client.was_closed());
}

TEST_F(ServerTest, CutsAStreamWithoutChunksSoThatItDoesNotLookComplete) {
  start();
  RawClient client(address_);
  client.send("GET /wait HTTP/1.0\r\n\r\n");
  Responder responder = take_waiting();
  responder.begin_events();
  responder.write("data: 1\n\n");
  EXPECT_THAT(client.receive_until("data: 1\n\n"), HasSubstr("200 OK"));
  responder.abort();
  client.receive_all();
  EXPECT_TRUE(client.was_reset());
}

TEST_F(ServerTest, AnswersForAHandlerThatForgotTo) {
  start();
  RawClient client(address_);
  client.send("GET /forget HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(client.receive_answer(), StartsWith("HTTP/1.1 500 "));
}

TEST_F(ServerTest, AnswersOnlyOnce) {
  start();
  RawClient client(address_);
  client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  Responder responder = take_waiting();
  EXPECT_TRUE(responder.send({.status = 200, .headers = {}, .body = "1"}));
  EXPECT_FALSE(responder.send({.status = 200, .headers = {}, .body = "2"}));
  EXPECT_FALSE(responder.begin_events());
  EXPECT_EQ(responder.write("3"), WriteResult::kGone);
  EXPECT_THAT(client.receive_answer(), HasSubstr("\r\n\r\n1"));
}

TEST_F(ServerTest, KeepsASilentStreamAlive) {
  start();
  RawClient client(address_);
  client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  Responder responder = take_waiting();
  responder.keep_alive(milliseconds(5), {{"x-request-id", "7"}});
  const std::string answer = client.receive_until(": ping\n\n\r\n8\r\n: ping\n\n");
  EXPECT_THAT(answer, HasSubstr("HTTP/1.1 200 OK"));
  EXPECT_THAT(answer, HasSubstr("x-request-id: 7\r\n"));
  EXPECT_FALSE(responder.send({.status = 500, .headers = {}, .body = {}}));  // it is too late
  responder.write("data: 1\n\n");
  responder.finish();
  EXPECT_THAT(client.receive_until("0\r\n\r\n"), HasSubstr("data: 1"));
}

TEST_F(ServerTest, DrainsWithoutCuttingAnswers) {
  start();
  RawClient idle(address_);
  idle.send(kGet);
  idle.receive_answer();
  RawClient busy(address_);
  busy.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  Responder responder = take_waiting();
  std::promise<void> drained;
  server_->drain(seconds(20), [&] { drained.set_value(); });
  idle.receive_all();
  EXPECT_TRUE(idle.was_closed());
  EXPECT_FALSE(RawClient(address_).connected());
  responder.send({.status = 200, .headers = {}, .body = "done"});
  EXPECT_THAT(busy.receive_all(), HasSubstr("done"));
  EXPECT_EQ(drained.get_future().wait_for(seconds(20)), std::future_status::ready);
  EXPECT_EQ(server_->num_connections(), 0);
}

TEST_F(ServerTest, CutsWhatIsNotDrainedInTime) {
  start();
  RawClient busy(address_);
  busy.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  const Responder responder = take_waiting();
  server_->drain_and_wait(milliseconds(1));
  expect_disconnected();
  EXPECT_EQ(busy.receive_all(), "");
}

TEST_F(ServerTest, TellsHandlersWhenItEnds) {
  start();
  RawClient busy(address_);
  busy.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  Responder responder = take_waiting();
  server_.reset();
  EXPECT_TRUE(responder.is_gone());
  EXPECT_FALSE(responder.write("x") == WriteResult::kTaken);
}

TEST_F(ServerTest, ListensOnAUnixSocketAndRemovesIt) {
  start();
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("wd-http-{}.sock", ::getpid()))
          .string();
  const net::Address address = net::Address::unix_socket(path);
  ASSERT_TRUE(server_->listen(address));
  {
    RawClient client(address);
    client.send(kGet);
    EXPECT_THAT(client.receive_answer(), HasSubstr("hello"));
  }
  server_->drain_and_wait(seconds(20));
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(ServerTest, RecordsEveryAnswer) {
  ServerOptions options;
  std::promise<std::string> recorded;
  options.on_answered = [&](const AccessRecord& record) {
    recorded.set_value(fmt::format("{} {} {} {} {}", record.method, record.path, record.route,
                                   record.status, record.bytes_sent > 0));
  };
  start(std::move(options));
  RawClient client(address_);
  client.send("GET //rest/x HTTP/1.1\r\nHost: x\r\n\r\n");
  client.receive_answer();
  EXPECT_EQ(recorded.get_future().get(), "GET /rest/x /rest/* 200 true");
}

TEST_F(ServerTest, UsesTheErrorBodiesItIsGiven) {
  ServerOptions options;
  options.render_error = [](int status, std::string_view) {
    return Response{.status = status, .headers = {}, .body = "{\"error\":1}"};
  };
  start(std::move(options));
  EXPECT_THAT(last_answer("x\r\n\r\n"), HasSubstr("\r\n\r\n{\"error\":1}"));
}

}  // namespace
}  // namespace wideep::http
