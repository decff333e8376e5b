#include "api/kv_ticket.h"

#include <gtest/gtest.h>

namespace wideep::api {
namespace {

KvKey key(uint8_t id, std::string_view secret) {
  const auto bytes = std::as_bytes(std::span(secret));
  return {id, {bytes.begin(), bytes.end()}};
}

KvTicket ticket() {
  KvTicket result{
      .engine_id = "e1", .epoch = 3, .host = "10.0.0.1", .port = 56, .consumer_group = "decode"};
  result.request_id = "r1";
  result.lease_id = 77;
  result.num_tokens = 100;
  result.prompt_hash = sha256(std::as_bytes(std::span("prompt")));
  result.blocks = {{BlockId{4}, 1}, {BlockId{9}, 7}};
  return result;
}

TEST(KvTicket, OpensForAKeyThatBothSidesKnow) {
  const KvKey mine = key(2, "secret");
  const std::vector<KvKey> known = {key(1, "old"), mine};
  const auto opened = open_ticket(seal(ticket(), mine), known);
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(*opened, ticket());
}

TEST(KvTicket, IsRefusedWhenAnyBitOfItIsChanged) {
  const KvKey mine = key(2, "secret");
  const std::string sealed = seal(ticket(), mine);
  const auto bytes = *from_base64url(sealed);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    auto forged = bytes;
    forged[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    EXPECT_FALSE(open_ticket(to_base64url(forged), std::span(&mine, 1))) << bit;
  }
  EXPECT_FALSE(open_ticket(sealed.substr(0, sealed.size() - 4), std::span(&mine, 1)));
  EXPECT_FALSE(open_ticket("", std::span(&mine, 1)));
  EXPECT_FALSE(open_ticket(sealed, {}));
  const KvKey other = key(2, "guess");
  EXPECT_EQ(open_ticket(sealed, std::span(&other, 1)).error().code, ErrorCode::kDataLoss);
}

TEST(KvTicket, ComesInTheShapeOfVllmsParameters) {
  const KvKey mine = key(0, "secret");
  const Json params = to_kv_transfer_params(ticket(), mine);
  EXPECT_EQ(params.find("do_remote_prefill")->as_bool(), true);
  EXPECT_EQ(params.find("remote_block_ids")->dump(), "[[4,9]]");
  EXPECT_EQ(params.find("remote_num_tokens")->as_int(), 100);
  EXPECT_EQ(*open_ticket(*params.find("ticket")->as_string(), std::span(&mine, 1)), ticket());
}

}  // namespace
}  // namespace wideep::api
