// What an answer says about KV, and what becomes of KV that no answer will tell of.
#include "server/generation_call.h"

#include "http/client.h"
#include "http/testing/raw_client.h"
#include "kv/test_port.h"
#include "server/api_server.h"
#include "server/fake_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <string_view>

namespace wideep::server {
namespace {

using engine::FinishReason;
using ::testing::HasSubstr;

class KvOfAnswers : public ::testing::Test {
 protected:
  void SetUp() override {
    kv::KvTransferOptions options;
    options.produces = true;
    options.listen = {"127.0.0.1", 0, {}};
    kv_ = *kv::KvTransfer::create(port_, std::move(options));
    ApiServerOptions api;
    api.served_model_names = {"toy"};
    server_.emplace(ApiServerParts{.loop = thread_.loop(),
                                   .engine = engine_,
                                   .tokenizer = byte_tokenizer(),
                                   .renderer = render_simple_chat,
                                   .clock = real_clock(),
                                   .kv = kv_.get()},
                    std::move(api));
    address_ = *server_->listen({"127.0.0.1", 0, {}});
  }

  // Asks for two choices and says what comes back once both have ended.
  http::testing::RawClient ask(std::string_view fields = "") {
    const std::string body = fmt::format(
        R"({{"prompt":"hi","n":2,"kv_transfer_params":{{"do_remote_decode":true}}{}}})", fields);
    http::testing::RawClient client(address_);
    client.send(
        fmt::format("POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                    "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
                    body.size(), body));
    return client;
  }

  // The first choice ends and leaves the KV of its prompt; the second may end too.
  void end_choices(std::optional<FinishReason> second) {
    engine::RequestEvent event;
    event.finish = FinishReason::kLength;
    event.kv_ticket = std::make_shared<const api::KvTicket>(port_.lease(port_.take(2)));
    engine_.wait_for_request(0).sink(event);
    const FakeEngine::Submitted other = engine_.wait_for_request(1);
    event.kv_ticket = nullptr;
    event.finish = second;
    if (second) other.sink(event);
  }

  net::LoopThread thread_;
  FakeEngine engine_;
  kv::TestPort port_{kv::TestPort::two_groups(), 8};
  std::unique_ptr<kv::KvTransfer> kv_;
  std::optional<ApiServer> server_;
  net::Address address_;
};

TEST_F(KvOfAnswers, AWholeAnswerSaysWhereItIs) {
  http::testing::RawClient client = ask();
  end_choices(FinishReason::kLength);
  EXPECT_THAT(client.receive_all(), HasSubstr(R"("kv_transfer_params":{"do_remote_prefill":true)"));
  EXPECT_EQ(port_.leases().stats().num_live, 1);
}

TEST_F(KvOfAnswers, IsLetGoWhenTheClientLeavesBeforeAllChoicesHaveEnded) {
  {
    const http::testing::RawClient client = ask();
    end_choices(std::nullopt);
  }
  port_.wait_for_ended_leases(1);
}

TEST_F(KvOfAnswers, IsLetGoWhenAnotherChoiceFails) {
  http::testing::RawClient client = ask();
  end_choices(FinishReason::kError);
  EXPECT_THAT(client.receive_all(), HasSubstr("engine_error"));
  port_.wait_for_ended_leases(1);
}

TEST_F(KvOfAnswers, IsLetGoByAStreamThatHasNoPlaceForIt) {
  http::testing::RawClient client = ask(R"(,"stream":true)");
  end_choices(FinishReason::kLength);
  EXPECT_THAT(client.receive_all(), HasSubstr("[DONE]"));
  port_.wait_for_ended_leases(1);
}

}  // namespace
}  // namespace wideep::server
