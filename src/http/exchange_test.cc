#include "http/exchange.h"

#include "http/connection.h"

#include <gtest/gtest.h>

#include <string>

namespace wideep::http {
namespace {

class ExchangeTest : public ::testing::Test {
 protected:
  Exchange make(Exchange::Options options = {}) {
    options.buffer_bytes_max = 100;
    options.wake = [this] { ++num_wakes_; };
    options.render_error = [](int status, std::string_view) {
      return Response{.status = status, .headers = {}, .body = {}};
    };
    return Exchange(std::move(options));
  }

  int num_wakes_ = 0;
};

TEST_F(ExchangeTest, CountsBytesUntilTheyAreWritten) {
  Exchange exchange = make();
  exchange.begin({});
  const size_t head_bytes = exchange.take_output().size();
  exchange.output_written();
  ASSERT_GT(head_bytes, 0U);
  EXPECT_EQ(exchange.write(std::string(60, 'x')), WriteResult::kTaken);
  EXPECT_EQ(exchange.write(std::string(60, 'x')), WriteResult::kFull);
  exchange.take_output();  // on its way, but not there
  EXPECT_EQ(exchange.write(std::string(60, 'x')), WriteResult::kFull);
  exchange.output_written();
  EXPECT_EQ(exchange.write(std::string(60, 'x')), WriteResult::kTaken);
}

TEST_F(ExchangeTest, SaysOnceThatItIsWritableAgain) {
  Exchange exchange = make();
  exchange.begin({});
  exchange.take_output();
  exchange.output_written();
  exchange.write(std::string(80, 'x'));
  int num_calls = 0;
  exchange.on_writable([&] { ++num_calls; });
  EXPECT_EQ(num_calls, 0);
  exchange.take_output();
  exchange.output_written();
  exchange.output_written();
  EXPECT_EQ(num_calls, 1);
  exchange.on_writable([&] { ++num_calls; });
  EXPECT_EQ(num_calls, 2);
}

TEST_F(ExchangeTest, TellsOfTheClientsLeavingOnceAndOnlyBeforeTheEnd) {
  Exchange left = make();
  int num_calls = 0;
  left.on_disconnect([&] { ++num_calls; });
  left.mark_gone();
  left.mark_gone();
  EXPECT_EQ(num_calls, 1);
  Exchange answered = make();
  answered.on_disconnect([&] { ++num_calls; });
  answered.send({});
  answered.mark_gone();
  EXPECT_EQ(num_calls, 1);
}

TEST_F(ExchangeTest, ReleasesWhatCallbacksHold) {
  Exchange exchange = make();
  const auto held = std::make_shared<int>(0);
  exchange.on_disconnect([held] {});
  EXPECT_EQ(held.use_count(), 2);
  exchange.send({});
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(ExchangeTest, NeverWritesABodyForHeadOr204) {
  Exchange head = make({.is_head_request = true});
  head.begin({.status = 200, .headers = {}, .body = "x"});
  head.write("y");
  head.finish();
  EXPECT_TRUE(head.take_output().ends_with("\r\n\r\n"));
  Exchange empty = make();
  empty.send({.status = 204, .headers = {}, .body = {}});
  EXPECT_EQ(empty.take_output(), "HTTP/1.1 204 No Content\r\n\r\n");
}

TEST_F(ExchangeTest, WakesTheConnectionForEveryOutput) {
  Exchange exchange = make();
  exchange.begin({});
  exchange.write("x");
  exchange.finish();
  EXPECT_EQ(num_wakes_, 3);
  exchange.output_written();
  EXPECT_FALSE(exchange.is_finished());
  exchange.take_output();
  exchange.output_written();
  EXPECT_TRUE(exchange.is_finished());
}

}  // namespace
}  // namespace wideep::http
