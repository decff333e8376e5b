#include "cmd/speculative_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wideep::cmd {
namespace {

TEST(SpeculativeConfig, TakesTheDraftLayerUnderBothItsNames) {
  EXPECT_EQ(parse_speculative_config(""), 0);
  EXPECT_EQ(parse_speculative_config(R"({"method":"mtp","num_speculative_tokens":1})"), 1);
  EXPECT_EQ(parse_speculative_config(R"({"method":"deepseek_mtp"})"), 1);
}

TEST(SpeculativeConfig, RefusesTheRestByName) {
  const auto refusal = [](std::string_view json) {
    const auto parsed = parse_speculative_config(json);
    return parsed ? "accepted" : parsed.error().message;
  };
  using testing::HasSubstr;
  EXPECT_THAT(refusal(R"({"method":"eagle"})"), HasSubstr("'eagle'"));
  EXPECT_THAT(refusal(R"({"method":"mtp","num_speculative_tokens":2})"),
              HasSubstr("num_speculative_tokens 2"));
  EXPECT_THAT(refusal(R"({"method":"mtp","num_speculative_tokens":"1"})"),
              HasSubstr("num_speculative_tokens"));
  EXPECT_THAT(refusal(R"({"method":"mtp","model":"x"})"), HasSubstr("'model'"));
  EXPECT_THAT(refusal(R"({"num_speculative_tokens":1})"), HasSubstr("'method'"));
  EXPECT_THAT(refusal("{"), HasSubstr("--speculative-config"));
  EXPECT_THAT(refusal("[]"), HasSubstr("object"));
}

}  // namespace
}  // namespace wideep::cmd
