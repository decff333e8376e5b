#include "api/error.h"

#include "base/json.h"
#include "base/utf8.h"

#include <gtest/gtest.h>

namespace wideep::api {
namespace {

TEST(ApiError, HasTheNestedShape) {
  EXPECT_EQ(invalid_value("n", "'n' is bad.").to_json(),
            "{\"error\":{\"message\":\"'n' is bad.\",\"type\":\"invalid_request_error\","
            "\"param\":\"n\",\"code\":\"invalid_value\"}}");
  EXPECT_EQ(invalid_api_key().status, 401);
  EXPECT_NE(invalid_api_key().to_json().find("\"param\":null"), std::string::npos);
}

TEST(ApiError, IsSmallWhateverTheClientSent) {
  const std::string huge(1 << 20, 'x');
  EXPECT_LT(unknown_field(huge).to_json().size(), 500U);
  EXPECT_LT(model_not_found(huge).to_json().size(), 500U);
  EXPECT_LT(invalid_body(huge).to_json().size(), 1300U);
}

TEST(ApiError, EchoesWholeCharacters) {
  std::string text(kEchoBytesMax - 1, 'x');
  EXPECT_EQ(echo(text + "\xE2\x82\xAC"), text + "...");
  EXPECT_TRUE(is_valid_utf8(echo("\xFF\xFE")));
}

TEST(ApiError, TellsClientsWhenToTryAgain) {
  const ApiError full = from_error({ErrorCode::kExhausted, "full"});
  EXPECT_EQ(full.status, 429);
  EXPECT_GT(full.retry_after_s, 0);
  const ApiError draining = from_error({ErrorCode::kUnavailable, "draining"});
  EXPECT_EQ(draining.status, 503);
  EXPECT_GT(draining.retry_after_s, 0);
  EXPECT_EQ(from_error({ErrorCode::kInvalidArgument, "x"}).status, 400);
  EXPECT_EQ(from_error({ErrorCode::kDataLoss, "x"}).status, 500);
}

TEST(ApiError, GivesHttpErrorsTheSameShape) {
  for (const int status : {400, 404, 405, 408, 413, 414, 415, 431, 500, 501, 503, 505}) {
    const ApiError error = from_http_status(status, "m");
    EXPECT_EQ(error.status, status);
    const auto json = parse_json(error.to_json());
    ASSERT_TRUE(json);
    EXPECT_TRUE(json->find("error")->find("code")->is_string());
    EXPECT_EQ(error.code == "internal_error", status == 500);
  }
}

}  // namespace
}  // namespace wideep::api
