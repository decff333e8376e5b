#include "kv/wire.h"

#include "kv/identity.h"

#include <gtest/gtest.h>

namespace wideep::kv {
namespace {

const std::vector<std::byte> kKey{std::byte{1}, std::byte{2}};

std::vector<Message> examples() {
  return {Hello{1, 1, "engine", "model x; numbers y", 7},
          PullRequest{"ticket", 3, 4, PullRequest::Want::kChecksums}, PullAnswer{4},
          Refusal{ErrorCode::kNotFound, "expired"},
          LeaseNotice{LeaseNotice::What::kHeartbeat, {LeaseId{1}, LeaseId{~0ULL}}}};
}

TEST(Wire, EveryMessageComesBack) {
  for (const Message& message : examples()) {
    const auto parsed = parse_message(encode(message, kKey), kKey);
    ASSERT_TRUE(parsed) << parsed.error().message;
    EXPECT_EQ(*parsed, message);
  }
}

TEST(Wire, IsRefusedWhenAnyBitOfItIsChanged) {
  for (const Message& message : examples()) {
    const std::vector<std::byte> bytes = encode(message, kKey);
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      std::vector<std::byte> changed = bytes;
      changed[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
      EXPECT_FALSE(parse_message(changed, kKey)) << message.index() << " bit " << bit;
    }
    for (size_t size = 0; size < bytes.size(); ++size)
      EXPECT_FALSE(parse_message(std::span(bytes).first(size), kKey));
  }
}

TEST(Wire, NeedsTheSameKey) {
  const std::vector<std::byte> other{std::byte{1}, std::byte{3}};
  const auto parsed = parse_message(encode(PullAnswer{1}, kKey), other);
  EXPECT_EQ(parsed.error().code, ErrorCode::kDataLoss);
}

TEST(Wire, CutsAReasonThatIsTooLong) {
  const Refusal refusal{ErrorCode::kExhausted, std::string(Refusal::kReasonBytesMax + 1, 'x')};
  const auto parsed = parse_message(encode(refusal, kKey), kKey);
  EXPECT_EQ(std::get<Refusal>(*parsed).reason.size(), Refusal::kReasonBytesMax);
}

TEST(Wire, AGreetingIsReadWhateverProtocolItsSenderPrefers) {
  const Hello ours{.protocol_min = 1, .protocol_max = 1, .engine_id = "a", .identity = "m"};
  Hello theirs = ours;
  theirs.protocol_max = 9;
  EXPECT_TRUE(check_hello(theirs, ours));
  theirs.protocol_min = 2;
  EXPECT_FALSE(check_hello(theirs, ours));
}

TEST(Wire, IdentitiesThatDifferAreBothNamed) {
  const Status status = check_identity("model a", "model b");
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("'model a'"), std::string::npos);
  EXPECT_NE(status.error().message.find("'model b'"), std::string::npos);
  EXPECT_NE(compatibility("model a"), compatibility("model b"));
}

}  // namespace
}  // namespace wideep::kv
